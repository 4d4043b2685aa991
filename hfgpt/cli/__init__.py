"""The `hfgpt` command: a thin door on the fourth floor to what the floors below do."""
