"""The share of predictions that are the reference."""
