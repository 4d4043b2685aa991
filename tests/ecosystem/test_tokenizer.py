"""transformers' own tests of its tokenizers, run on one that is trained here."""

import tempfile
import unittest
from pathlib import Path
from typing import ClassVar
from unittest import mock

from transformers import PreTrainedTokenizerFast
from transformers_tests import test_tokenization_common
from transformers_tests.test_tokenization_common import TokenizerTesterMixin
from transformers_tests.test_tokenizers_backend_mixin import TokenizersBackendTesterMixin

from hfgpt.data.stories import generate_stories
from hfgpt.tokenization import train_tokenizer

LEFT_OUT = {
    "test_tokenize_special_tokens": (
        "wants `tokenize` to find a special token in text, and here text never becomes one: "
        "tests/tokenization holds that rule"
    ),
}


class TestTrainedTokenizer(TokenizersBackendTesterMixin, TokenizerTesterMixin, unittest.TestCase):
    """A tokenizer of 1,024 ids, trained on generated stories and saved: the mixins load it from its folder."""

    folder: ClassVar[tempfile.TemporaryDirectory[str]]
    tokenizer_class = PreTrainedTokenizerFast
    rust_tokenizer_class = PreTrainedTokenizerFast
    test_tokenizer_from_extractor = False  # it builds the named tokenizers of known models from their vocabularies

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        stories = list(generate_stories(num_stories=300))
        train_tokenizer(stories, 1024).save_pretrained(cls.folder.name)
        cls.from_pretrained_id = [cls.folder.name]
        # The mixin reads a text of transformers' repository, which the source distribution leaves out.
        sample = Path(cls.folder.name) / "fixtures" / "sample_text.txt"
        sample.parent.mkdir()
        sample.write_text("\n\n".join(stories[:20]), encoding="utf-8")
        with mock.patch.object(test_tokenization_common, "get_tests_dir", return_value=cls.folder.name):
            TokenizerTesterMixin.setUpClass.__func__(cls)
        TokenizersBackendTesterMixin.setUpClass.__func__(cls)

    def setUp(self) -> None:
        if self._testMethodName in LEFT_OUT:
            self.skipTest(f"Left out: {LEFT_OUT[self._testMethodName]}")
