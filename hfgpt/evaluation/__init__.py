"""Measures and baselines: what says how good a model is. First floor of the house; it knows no model of ours."""
