"""What the tests of the recipes share: caches of their own, a small text, a tiny recipe, and processes to run it in."""

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
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

    def __init__(self, folder: Path, source: Path, capsys: pytest.CaptureFixture[str] | None = None) -> None:
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


@pytest.fixture(scope="session")
def recipe_in(text_file: Path) -> Callable[[Path], Recipe]:
    """A recipe in a folder of the caller's, for runs that several tests look at."""
    return lambda folder: Recipe(folder, text_file)


# What a forked process runs. Each batch that it computes is written down, with the step that it belongs to.
RUN_RECIPE = """
import datasets, json, logging, torch
from hfgpt.recipes.pretrain import main
from hfgpt.training.batches import TrainingBatches

output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(output, 1), os.dup2(output, 2)
os.environ.update(environment)
torch.set_num_threads(1)
datasets.config.HF_DATASETS_CACHE = datasets_cache
batches = TrainingBatches.__iter__

def witnessed(self):
    with open(seen, "a", buffering=1) as file:
        for step, micro_batches in zip(self.steps, batches(self)):
            rows = [row for batch in micro_batches for row in batch["input_ids"].tolist()]
            print(json.dumps([step, rows]), file=file)
            yield micro_batches

TrainingBatches.__iter__ = witnessed
exec(prelude)
main(arguments)
"""


class ForkedRun:
    """The recipe in real processes of its own, `num_processes` of them joined by gloo as a launcher would join them."""

    def __init__(
        self, folder: Path, arguments: list[str], *, num_processes: int = 1, prelude: str = "", **environment: str
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")  # forks from a process that has imported everything
        context.set_forkserver_preload(["hfgpt.recipes.pretrain"])
        environment |= {"ACCELERATE_USE_CPU": "true"}
        if num_processes > 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            environment |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(num_processes))
        self.processes = []
        for rank in range(num_processes):
            ranks = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) if num_processes > 1 else {}
            names = {
                "arguments": arguments,
                "environment": environment | ranks,
                "log": str(folder / f"log-{rank}.txt"),
                "seen": str(folder / f"seen-{rank}.jsonl"),
                "datasets_cache": str(folder / "datasets_cache"),
                "prelude": prelude,
            }
            self.processes.append(context.Process(target=exec, args=("import os\n" + RUN_RECIPE, names)))
            self.processes[-1].start()

    def send(self, number: signal.Signals, rank: int = 0) -> None:
        os.kill(self.processes[rank].pid, number)

    def wait(self, *, timeout: float = 120) -> list[int]:
        """The exit codes."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        assert None not in codes, f"hangs: {codes}\n{self.printed}"
        return codes

    def finish(self) -> str:
        """Wait for a good end; what was printed."""
        codes = self.wait()
        assert codes == [0] * len(codes), self.printed
        return self.printed

    def wait_for(self, path: Path) -> None:
        """Wait until the run has written a file or folder."""
        wait_for(path, lambda: any(process.exitcode is not None for process in self.processes), lambda: self.printed)

    @property
    def printed(self) -> str:
        return "".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("log-*.txt")))

    @property
    def seen(self) -> dict[int, list[list[int]]]:
        """For each step, the rows of its global batch: those of the first process, of the second, ..."""
        rows: dict[int, list[list[int]]] = {}
        for rank in range(len(self.processes)):
            for line in (self.folder / f"seen-{rank}.jsonl").read_text(encoding="utf-8").splitlines():
                step, part = json.loads(line)
                rows.setdefault(step, []).extend(part)
        return rows


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(path: Path, has_ended: Callable[[], bool], printed: Callable[[], str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        ended = has_ended()  # asked first: it may write the path and end between the two questions
        assert path.exists() or not ended, f"ended without {path}:\n{printed()}"
        assert time.monotonic() < deadline, f"{path} was not written:\n{printed()}"
        time.sleep(0.005)


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


# Python runs this at the start of each process that finds it on its path. Those that a launcher has given a rank leave
# their process id there at once, and what accelerate made of them at their end.
WITNESS = """
import atexit, os, sys

if "RANK" in os.environ or "MASTER_PORT" in os.environ:
    name = os.path.join(os.path.dirname(__file__), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    name += "-" + os.environ.get("RANK", "alone")
    with open(name + ".pid", "w") as file:
        file.write(str(os.getpid()))

    def testify():
        if "accelerate.state" in sys.modules:
            state = sys.modules["accelerate.state"].PartialState
            if state._shared_state:
                with open(name + ".txt", "w") as file:
                    file.write(f"{state().process_index} of {state().num_processes} on {state().device.type}")

    atexit.register(testify)
"""


class Launch:
    """A program under a real launcher: `torchrun` or `accelerate launch`."""

    TORCHRUN = ("-m", "torch.distributed.run")
    ACCELERATE = ("-m", "accelerate.commands.launch")
    RECIPE = str(Path(__file__).parents[2] / "recipes" / "pretrain.py")

    def __init__(self, folder: Path, *command: str, **environment: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(WITNESS, encoding="utf-8")
        settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "PYTHONPATH": folder}
        inherited = {name: value for name, value in os.environ.items() if name != "ACCELERATE_USE_CPU"}
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=inherited | settings | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @classmethod
    def torchrun(cls, folder: Path, *command: str, num_processes: int = 2, **environment: str) -> "Launch":
        options = ["--nproc-per-node", str(num_processes), "--master-port", str(free_port())]
        return cls(folder, *cls.TORCHRUN, *options, *command, **environment)

    @classmethod
    def accelerate(cls, folder: Path, config: Path, *command: str, **environment: str) -> "Launch":
        options = ["--config_file", str(config), "--main_process_port", str(free_port())]
        return cls(folder, *cls.ACCELERATE, *options, *command, **environment)

    def wait(self, timeout: float = 240) -> int:
        """The launcher's exit code."""
        return self.process.wait(timeout)

    def finish(self) -> str:
        """Wait for a good end; what was printed."""
        assert self.wait() == 0, self.printed
        return self.printed

    def wait_for(self, path: Path) -> None:
        """Wait until the run has written a file or folder."""
        wait_for(path, lambda: self.process.poll() is not None, lambda: self.printed)

    def process_id(self, rank: int, restart: int = 0) -> int:
        return int((self.folder / f"{restart}-{rank}.pid").read_text())

    @property
    def printed(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8")

    @property
    def witnesses(self) -> dict[str, str]:
        """What each process that came to its end says of itself, by restart and rank."""
        return {path.stem: path.read_text() for path in self.folder.glob("*-*.txt")}

    def kill(self) -> None:
        """End the launcher and what it has started."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for path in self.folder.glob("*.pid"):
            try:
                os.kill(int(path.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                continue


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
CLOCKS = {"tokens_per_second", "evaluation_seconds"}


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
        for name in ("metrics.jsonl", "samples.jsonl"):
            assert cls.lines(one / name) == cls.lines(other / name), name
        final = [load_file(folder / "final" / "model.safetensors") for folder in (one, other)]
        cls.assert_same(*final, "final")


@pytest.fixture
def comparison() -> type[Comparison]:
    return Comparison
