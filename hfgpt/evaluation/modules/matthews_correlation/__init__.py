"""The correlation of predictions and references."""
