"""The `hfgpt` command: a thin door to what the floors below do."""
