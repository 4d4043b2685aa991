"""The share of right predictions."""
