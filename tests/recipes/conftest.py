"""What the tests of the recipes share: caches of their own, one process on the CPU, a small text, a tiny recipe."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from transformers import GPT2Config, GPT2LMHeadModel

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.recipes.pretrain import main
from hfgpt.tokenization import train_tokenizer

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "bird",
    "sat",
    "ran",
    "flew",
    "on",
    "under",
    "mat",
    "house",
    "red",
    "blue",
    "and",
    "it",
]


@pytest.fixture(autouse=True)
def hermetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No cache of the user's, no Hub, one process on the CPU; accelerate's state is cleared before and after."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for state in (AcceleratorState, GradientState):
        state._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def sentences(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choice(WORDS) for _ in range(9)) + "." for _ in range(count)]


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One document of about 20 kB."""
    path = tmp_path_factory.mktemp("text") / "sentences.txt"
    path.write_text("\n".join(sentences(500)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 280 ids."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(sentences(200), 280, model_max_length=16).save_pretrained(folder)
    return folder


def model_config(**fields: Any) -> HfGptConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 279)
    return HfGptConfig(**{"vocab_size": 280, **sizes, **special, **fields})


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A model of 280 ids and 16 positions in hfgpt's layout, with its tokenizer."""
    return _with_tokenizer(HfGptForCausalLM(_seeded(model_config())), tmp_path_factory, tokenizer_folder)


@pytest.fixture(scope="session")
def gpt2_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """The same in GPT-2's layout."""
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16, "vocab_size": 280}
    config = GPT2Config(**sizes, bos_token_id=279, eos_token_id=279)
    return _with_tokenizer(GPT2LMHeadModel(_seeded(config)), tmp_path_factory, tokenizer_folder)


def _seeded(config: Any) -> Any:
    torch.manual_seed(3)
    return config


def _with_tokenizer(model: Any, tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    for path in tokenizer_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


class Recipe:
    """`hfgpt pretrain` with a tiny configuration."""

    def __init__(self, folder: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.output_dir, self.capsys = folder, folder / "run", capsys
        self.fields: dict[str, Any] = {
            "output_dir": str(self.output_dir),
            "source": str(source),
            "tokenizer": "train",
            "tokenizer_vocab_size": 280,
            "block_size": 16,
            "model": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
            "max_steps": 4,
            "global_batch_size": 4,
            "logging_steps": 2,
            "eval_steps": 2,
            "max_eval_batches": 2,
            "sample_max_new_tokens": 5,
        }

    def arguments(self, **fields: Any) -> list[str]:
        """The configuration with these changes, as the arguments of the command. None takes a field out."""
        path = self.folder / "recipe.yaml"
        merged = {name: value for name, value in {**self.fields, **fields}.items() if value is not None}
        path.write_text(yaml.safe_dump(merged), encoding="utf-8")
        return ["--config", str(path)]

    def run(self, *arguments: str, **fields: Any) -> str:
        """Run to the end; what it printed."""
        main([*self.arguments(**fields), *arguments])
        return self.capsys.readouterr().out

    def refusal(self, *arguments: str, **fields: Any) -> str:
        """Run, expect status 2 and one sentence without a traceback; that sentence."""
        with pytest.raises(SystemExit) as stopped:
            main([*self.arguments(**fields), *arguments])
        assert stopped.value.code == 2
        lines = [line for line in self.capsys.readouterr().err.splitlines() if line.startswith("hfgpt: error: ")]
        assert len(lines) == 1
        return lines[0]

    @property
    def final(self) -> Path:
        return self.output_dir / "final"

    def metrics(self, folder: Path | None = None) -> list[dict[str, float]]:
        text = ((folder or self.output_dir) / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def recipe(tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]) -> Recipe:
    return Recipe(tmp_path, text_file, capsys)
