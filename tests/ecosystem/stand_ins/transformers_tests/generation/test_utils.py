"""Stand-in for a file that transformers' source distribution leaves out; `ModelTesterMixin` asks for its class by name.

What it tests there, every way to generate, `tests/ecosystem/test_generate.py` tests here.
"""


class GenerationTesterMixin:
    """Nothing of its own."""
