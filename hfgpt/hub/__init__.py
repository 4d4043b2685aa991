"""What leaves for the Hub: model cards that fill themselves from what happened, and pushing.

Second floor of the house. `facts.py` holds what a card can say and `cards.py` says it; `run_record.py` listens to a
training for what only it knows, and `lineage.py`, `machine.py`, `energy.py` and `repositories.py` find out the rest.
"""
