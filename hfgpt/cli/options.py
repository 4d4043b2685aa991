"""What several commands share of how they take options."""

__all__ = ["RECIPE_ARGUMENTS"]

RECIPE_ARGUMENTS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""Context settings of a recipe's command, which hands all its options over to the recipe's own parser."""
