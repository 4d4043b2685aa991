"""The harmonic mean of precision and recall."""
