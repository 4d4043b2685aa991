"""Common pieces of characters."""
