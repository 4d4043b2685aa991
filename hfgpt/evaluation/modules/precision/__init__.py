"""The share of a class's predictions that are right."""
