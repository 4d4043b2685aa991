"""The share of a class's examples that are found."""
