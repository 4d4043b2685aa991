"""What the tests of the recipes share: caches of their own, small texts, tiny recipes, and a comparison of two runs."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.recipes import finetune_classification, finetune_instruction, pretrain
from hfgpt.tokenization import train_tokenizer

from .processes import ForkedRun, Launch

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
    """The command of a recipe with a tiny configuration; `module` is the one with its `main`."""

    def __init__(
        self, module: ModuleType, folder: Path, fields: dict[str, Any], capsys: pytest.CaptureFixture[str] | None = None
    ) -> None:
        self.module, self.folder, self.output_dir, self.capsys = module, folder, folder / "run", capsys
        self.fields = {"output_dir": str(self.output_dir), **fields}

    def arguments(self, **fields: Any) -> list[str]:
        """The configuration with these changes, as the arguments of the command. None takes a field out."""
        path = self.folder / "recipe.yaml"
        merged = {name: value for name, value in {**self.fields, **fields}.items() if value is not None}
        path.write_text(yaml.safe_dump(merged), encoding="utf-8")
        return ["--config", str(path)]

    def run(self, *arguments: str, **fields: Any) -> str:
        """Run to the end; what it printed."""
        self.module.main([*self.arguments(**fields), *arguments])
        return self.capsys.readouterr().out

    def refusal(self, *arguments: str, **fields: Any) -> str:
        """Run, expect status 2 and one sentence without a traceback; that sentence."""
        with pytest.raises(SystemExit) as stopped:
            self.module.main([*self.arguments(**fields), *arguments])
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


def pretraining(source: Path) -> dict[str, Any]:
    return {
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


@pytest.fixture
def recipe(tmp_path: Path, text_file: Path, capsys: pytest.CaptureFixture[str]) -> Recipe:
    """`hfgpt pretrain`."""
    return Recipe(pretrain, tmp_path, pretraining(text_file), capsys)


@pytest.fixture(scope="session")
def recipe_in(text_file: Path) -> Callable[[Path], Recipe]:
    """The same in a folder of the caller's, for runs that several tests look at."""
    return lambda folder: Recipe(pretrain, folder, pretraining(text_file))


def labelled_sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Different texts of 3 to 9 words with the names of their classes, which have no word in common."""
    chance, vocabularies = random.Random(seed), {"ham": WORDS[:8], "spam": WORDS[8:]}
    rows: dict[str, str] = {}
    while len(rows) < count:
        label = ("ham", "spam")[len(rows) % 2]
        rows[" ".join(chance.choices(vocabularies[label], k=chance.randint(3, 9)))] = label
    return list(rows.items())


@pytest.fixture(scope="session")
def labelled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv file of 200 texts, half of them spam."""
    path = tmp_path_factory.mktemp("labelled") / "messages.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in labelled_sentences(200)))
    return path


def classification(source: Path, checkpoint: Path) -> dict[str, Any]:
    return {
        "source": str(source),
        "init_from": str(checkpoint),
        "trainable": "all",
        "max_steps": 20,
        "global_batch_size": 16,
        "learning_rate": 1e-2,
        "logging_steps": 5,
        "eval_steps": 10,
    }


@pytest.fixture
def classify(tmp_path: Path, labelled_file: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Recipe:
    """`hfgpt classify train`."""
    return Recipe(finetune_classification, tmp_path, classification(labelled_file, checkpoint), capsys)


@pytest.fixture(scope="session")
def classify_in(labelled_file: Path, checkpoint: Path) -> Callable[..., Recipe]:
    """The same in a folder of the caller's, for runs that several tests look at."""

    def make(folder: Path, capsys: pytest.CaptureFixture[str] | None = None) -> Recipe:
        return Recipe(finetune_classification, folder, classification(labelled_file, checkpoint), capsys)

    return make


def instructions(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Different Alpaca entries: what is asked for is one of eight words among others, once or twice."""
    chance, entries = random.Random(seed), {}
    while len(entries) < count:
        word, others, times = chance.choice(WORDS[:8]), chance.sample(WORDS[8:], 2), chance.randint(1, 2)
        words, apart = " ".join(chance.sample([word, *others], 3)), chance.random() < 0.5
        instruction = ("say", "repeat")[times - 1] + ("" if apart else f" {words}")
        entry = {"instruction": instruction, "input": words if apart else "", "output": " ".join([word] * times)}
        entries[times, words] = {**entry, "task": ("once", "twice")[times - 1]}
    return list(entries.values())


@pytest.fixture(scope="session")
def instruction_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A json file of 240 entries."""
    path = tmp_path_factory.mktemp("instructions") / "entries.json"
    path.write_text(json.dumps(instructions(240)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def longer_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """As `checkpoint`, but wider, and of 96 positions, which hold a question with its answer in a chat template."""
    model = HfGptForCausalLM(_seeded(model_config(hidden_size=32, max_position_embeddings=96)))
    return _with_tokenizer(model, tmp_path_factory, tokenizer_folder)


def answering(source: Path, checkpoint: Path) -> dict[str, Any]:
    return {
        "source": str(source),
        "template": "chatml",
        "init_from": str(checkpoint),
        "validation_fraction": 0.1,
        "max_steps": 20,
        "global_batch_size": 8,
        "learning_rate": 1e-2,
        "logging_steps": 5,
        "eval_steps": 10,
        "max_new_tokens": 12,
    }


@pytest.fixture
def instruct(
    tmp_path: Path, instruction_file: Path, longer_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> Recipe:
    """`hfgpt instruct`."""
    return Recipe(finetune_instruction, tmp_path, answering(instruction_file, longer_checkpoint), capsys)


@pytest.fixture(scope="session")
def instruct_in(instruction_file: Path, longer_checkpoint: Path) -> Callable[[Path], Recipe]:
    """The same in a folder of the caller's, for runs that several tests look at."""
    return lambda folder: Recipe(finetune_instruction, folder, answering(instruction_file, longer_checkpoint))


@pytest.fixture(scope="module")
def fork() -> Iterator[Callable[..., ForkedRun]]:
    """Starts a `ForkedRun`; none outlives the module's tests."""
    runs: list[ForkedRun] = []

    def start(*arguments: Any, **keywords: Any) -> ForkedRun:
        runs.append(ForkedRun(*arguments, **keywords))
        return runs[-1]

    yield start
    for run in runs:
        for process in run.processes:
            process.kill()


@pytest.fixture
def launch() -> Iterator[type[Launch]]:
    """`Launch`, none of which outlives the test."""
    launches: list[Launch] = []

    class Noted(Launch):
        def __init__(self, *arguments: Any, **environment: str) -> None:
            super().__init__(*arguments, **environment)
            launches.append(self)

    yield Noted
    for launched in launches:
        launched.kill()


# What differs between two runs of the same numbers.
CLOCKS = {"tokens_per_second", "texts_per_second", "evaluation_seconds"}


class Comparison:
    """Two runs beside each other, bit for bit."""

    @staticmethod
    def lines(path: Path) -> list[dict[str, Any]]:
        """A log, without clocks."""
        return [
            {name: value for name, value in json.loads(line).items() if name not in CLOCKS}
            for line in path.read_text(encoding="utf-8").splitlines()
        ]

    @classmethod
    def assert_same(cls, one: Any, other: Any, where: str) -> None:
        assert type(one) is type(other), where
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), where
        elif isinstance(one, dict):
            assert one.keys() == other.keys(), where
            for key in one:
                cls.assert_same(one[key], other[key], f"{where}[{key!r}]")
        elif isinstance(one, list | tuple):
            assert len(one) == len(other), where
            for index, (left, right) in enumerate(zip(one, other, strict=True)):
                cls.assert_same(left, right, f"{where}[{index}]")
        else:
            assert one == other, where

    @classmethod
    def assert_same_state(cls, one: Path, other: Path) -> None:
        """Every file of two checkpoints that holds numbers of the training."""
        weights = [load_file(folder / "model.safetensors") for folder in (one, other)]
        cls.assert_same(*weights, "model.safetensors")
        for name in ("optimizer.pt", "random_states.pt"):
            states = [torch.load(folder / "training_state" / name, weights_only=True) for folder in (one, other)]
            cls.assert_same(*states, name)
        progress = [json.loads((folder / "training_state" / "run.json").read_text()) for folder in (one, other)]
        for key in ("step", "num_targets", "num_processes", "health", "memory", "stream", "fingerprint"):
            assert progress[0][key] == progress[1][key], key

    @classmethod
    def assert_same_run(cls, one: Path, other: Path, *, last_step: int) -> None:
        """Last checkpoint, logs and the finished model of two runs."""
        cls.assert_same_state(*(folder / f"checkpoint-{last_step}" for folder in (one, other)))
        for name in {path.name for folder in (one, other) for path in folder.glob("*.jsonl")}:
            assert cls.lines(one / name) == cls.lines(other / name), name
        final = [load_file(folder / "final" / "model.safetensors") for folder in (one, other)]
        cls.assert_same(*final, "final")


@pytest.fixture
def comparison() -> type[Comparison]:
    return Comparison
