"""Stand-in for a file that transformers' source distribution leaves out, and which its `ModelTesterMixin` inherits.

What it tests there, exported models against eager ones, `tests/ecosystem/test_compilers.py` tests here.
"""


class ExportTesterMixin:
    """Nothing of its own."""
