"""The longest common subsequence of words."""
