"""How text is drawn where nobody says else."""

__all__ = ["DEFAULT_NEW_TOKENS", "DEFAULT_TEMPERATURE", "DEFAULT_TOP_K"]

DEFAULT_TEMPERATURE = 0.8  # a little below 1: fewer slips than the model's own odds, and still other text each time
DEFAULT_TOP_K = 50  # cuts the long tail of tokens that are each improbable and together are not
DEFAULT_NEW_TOKENS = 200
