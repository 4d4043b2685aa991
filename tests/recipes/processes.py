"""Recipes in real processes: forked from one that has imported everything, or started by a real launcher."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["ForkedRun", "Launch"]

# What a forked process runs. Each batch that it computes is written down, with the step that it belongs to.
RUN_RECIPE = """
import datasets, json, torch
from importlib import import_module
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
            # What stands in for the tokens of a text, where the frozen part of the model was computed before.
            name = "input_ids" if "input_ids" in micro_batches[0] else "trunk_states"
            rows = [row for batch in micro_batches for row in batch[name].tolist()]
            print(json.dumps([step, rows]), file=file)
            yield micro_batches

TrainingBatches.__iter__ = witnessed
exec(prelude)
import_module(recipe).main(arguments)
"""


# What the process from which the others are forked has imported.
RECIPES = [
    "hfgpt.recipes.pretrain",
    "hfgpt.recipes.finetune_classification",
    "hfgpt.recipes.finetune_instruction",
    "hfgpt.recipes.ablation",
]


class ForkedRun:
    """A recipe in real processes of its own, `num_processes` of them joined by gloo as a launcher would join them.

    `recipe` is the module whose `main` is run; `prelude` is run before it.
    """

    def __init__(
        self,
        folder: Path,
        arguments: list[str],
        *,
        recipe: str = RECIPES[0],
        num_processes: int = 1,
        prelude: str = "",
        **environment: str,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")  # forks from a process that has imported everything
        context.set_forkserver_preload(RECIPES)
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
                "recipe": recipe,
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
