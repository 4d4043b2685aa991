"""How far confidence lies from accuracy."""
