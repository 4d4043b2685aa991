"""The area under the receiver operating characteristic."""
