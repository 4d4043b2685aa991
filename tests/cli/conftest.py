"""What the tests of the `hfgpt` command share: the command itself, a tiny model, caches of their own."""

import random
from pathlib import Path
from typing import NamedTuple

import datasets
import pytest
import torch
from transformers import GenerationConfig
from transformers.utils import logging as transformers_logging

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.cli.main import main
from hfgpt.tokenization import train_tokenizer


class Answer(NamedTuple):
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one sentence of a user's error: status 2, nothing printed to standard output, no traceback."""
        assert self.status == 2
        assert self.out == ""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("hfgpt: error: ")
        return lines[0].removeprefix("hfgpt: error: ")


@pytest.fixture
def hfgpt(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    """The command, in this process: a process of its own would take seconds to import what it needs."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    datasets.disable_progress_bars()

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr("sys.argv", ["hfgpt", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return Answer(int(stopped.value.code or 0), *capfd.readouterr())

    yield run
    datasets.enable_progress_bars()
    transformers_logging.enable_progress_bar()


@pytest.fixture(scope="session")
def tokenizer():
    chance = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "house"]
    texts = [" ".join(chance.choice(words) for _ in range(9)) for _ in range(50)]
    return train_tokenizer(texts, 270, model_max_length=32)


def tiny_config(**fields) -> HfGptConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 269)
    return HfGptConfig(**{"vocab_size": 270, **sizes, **special, "initializer_range": 0.3, **fields})


@pytest.fixture
def save(tmp_path: Path, tokenizer):
    """Save a tiny model of any class with its tokenizer and, as the recipes do, defaults for drawing."""

    def write(
        model_class: type = HfGptForCausalLM, name: str = "model", *, with_tokenizer: bool = True, **fields
    ) -> Path:
        torch.manual_seed(0)
        model = model_class(tiny_config(**fields))
        if model.can_generate():
            drawing = {"do_sample": True, "temperature": 0.8, "top_k": 50, "max_new_tokens": 16}
            model.generation_config = GenerationConfig(**drawing, eos_token_id=269, pad_token_id=269)
        model.save_pretrained(tmp_path / name)
        if with_tokenizer:
            tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def model_folder(save) -> Path:
    return save()
