"""The training engine: one loop for every recipe, and what listens to it.

First floor of the house. It knows no model and no task of its own: read `engine.py` first, then `task.py` (what a
recipe supplies), `batches.py` (who computes what), `events.py` (who is told).
"""
