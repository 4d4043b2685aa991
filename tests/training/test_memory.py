"""Memory that runs out for real: the operating system refuses a process more than it is granted (RLIMIT_AS).

What torch's allocator then raises is what a machine that is too small gives. Each test has processes of its own, which
grant themselves the limit when a certain part of a certain step begins.
"""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from hfgpt.errors import UserError
from hfgpt.training.memory import MicroBatching, out_of_memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps to RLIMIT_AS")

# A model whose memory is in its logits, 4 MB for each example. Each run is told how many bytes it is granted, from
# which part of which step on (counted from 0), on which process.
PROGRAM = """
import json, logging, os, resource, sys
from pathlib import Path
import torch
from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.errors import exit_on_user_error
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback
from hfgpt.training.task import Task

BLOCK_SIZE, VOCAB_SIZE = 128, 8000
UNLIMITED = resource.RLIM_INFINITY

def address_space():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

class Tokens(Task):
    def __init__(self, limit, fault):
        generator = torch.Generator().manual_seed(0)
        self.train_examples = list(torch.randint(0, VOCAB_SIZE, (32, BLOCK_SIZE), generator=generator))
        self.validation_examples = self.train_examples[:16]
        self.limit, self.fault, self.step, self.part = limit, fault, 0, 0
    def collate(self, examples):
        ids = torch.stack(examples)
        return {"input_ids": ids, "labels": ids}
    def count_targets(self, batch):
        return batch["labels"][:, 1:].numel()
    def loss(self, model, batch, num_items_in_batch):
        if not model.training:
            if [self.step, "evaluation"] == self.fault:
                resource.setrlimit(resource.RLIMIT_AS, (address_space() + self.limit, UNLIMITED))
        else:
            if [self.step, self.part] == self.fault:
                resource.setrlimit(resource.RLIMIT_AS, (address_space() + self.limit, UNLIMITED))
            self.part += 1
        return super().loss(model, batch, num_items_in_batch)

class Witness(Callback):
    def __init__(self, task):
        self.task, self.losses, self.norms, self.evaluations = task, [], [], []
    def on_evaluation(self, run, evaluation):
        self.evaluations.append(evaluation.metrics["loss"])
        if self.task.fault == [run.step, "evaluation"]:  # training shall be of the full size
            resource.setrlimit(resource.RLIMIT_AS, (UNLIMITED, UNLIMITED))
    def on_step(self, run, report):
        self.task.step, self.task.part = report.step, 0
        self.losses.append(report.loss)
        self.norms.append(report.grad_norm)

class WithBuffer(HfGptForCausalLM):  # distribution hands buffers round in the forward pass
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("witness", torch.zeros(3), persistent=False)

def run(name, limit=0, fault=None, rank=0, num_steps=3, **fields):
    torch.manual_seed(0)
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": BLOCK_SIZE}
    model = WithBuffer(HfGptConfig(vocab_size=VOCAB_SIZE, **sizes, **dropouts))
    config = TrainingConfig(
        output_dir=sys.argv[1], max_steps=num_steps, global_batch_size=16, learning_rate=1e-2,
        lr_scheduler_type="constant", adam_epsilon=1e-3, **fields,
    )
    accelerator = start_accelerator(config)
    task = Tokens(limit, fault if accelerator.process_index == rank else None)
    witness = Witness(task)
    try:
        done = train(task, model, config, accelerator, [witness])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (UNLIMITED, UNLIMITED))
    torch.save(
        {
            "losses": witness.losses,
            "evaluations": witness.evaluations,
            "norms": witness.norms,
            "weights": torch.cat([parameter.detach().flatten() for parameter in model.parameters()]),
            "halvings": done.memory.halvings,
        },
        Path(sys.argv[1]) / f"{name}-{accelerator.process_index}.pt",
    )

logging.basicConfig(level=logging.WARNING, format="said: %(message)s")
with exit_on_user_error():
    for name, arguments in json.loads(sys.argv[2]).items():
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"begins: {name}\\n")
        run(name, **arguments)
"""

MEGABYTE = 10**6  # limits lie in the middle between those at which the sizes change


@dataclass
class Outcome:
    """What the runs of one start of the program left."""

    folder: Path
    status: int
    stderr: str
    said: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for line in self.stderr.splitlines():
            if line.startswith("begins: "):
                lines = self.said.setdefault(line.removeprefix("begins: "), [])
            elif line.startswith("said: "):
                lines.append(line.removeprefix("said: "))

    def result(self, name: str, rank: int = 0) -> dict[str, Any]:
        return torch.load(self.folder / f"{name}-{rank}.pt", weights_only=True)


def start(folder: Path, runs: dict[str, dict[str, Any]], *, num_processes: int = 1) -> Outcome:
    (folder / "program.py").write_text(PROGRAM)
    launcher = []
    if num_processes > 1:
        with socket.socket() as free:  # a port that nobody uses now
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={num_processes}", f"--master-port={port}"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # malloc gives every tensor back to the system when it is freed, so that the address space is what is in use.
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    completed = subprocess.run(
        [sys.executable, *launcher, str(folder / "program.py"), str(folder), json.dumps(runs)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return Outcome(folder, completed.returncode, completed.stderr)


def assert_same_training(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert result["evaluations"] == pytest.approx(expected["evaluations"], rel=1e-6)
    assert result["losses"] == pytest.approx(expected["losses"], rel=1e-6)
    assert result["norms"] == pytest.approx(expected["norms"], rel=1e-5)
    assert_close(result["weights"], expected["weights"], rtol=1e-5, atol=1e-6)


def sentences(step: int, *sizes: int) -> list[str]:
    return [
        f"step {step}: out of memory with {before} examples at once; from now on {after} at once, the global batch as "
        "before"
        for before, after in pairwise(sizes)
    ]


def test_the_micro_batch_is_halved_and_the_training_stays_the_same_until_one_example_is_too_large(tmp_path) -> None:
    outcome = start(
        tmp_path,
        {
            "unlimited": {},
            "halved once": {"limit": 150 * MEGABYTE, "fault": [0, 0]},
            "halved three times": {"limit": 44 * MEGABYTE, "fault": [0, 0]},
            "in the third part of the second step": {"limit": 38 * MEGABYTE, "fault": [1, 2], "micro_batch_size": 4},
            "in the first evaluation": {"limit": 50 * MEGABYTE, "fault": [0, "evaluation"]},
            "too small for one": {"limit": 5 * MEGABYTE, "fault": [1, 0], "micro_batch_size": 2},
        },
    )
    assert outcome.said == {
        "unlimited": [],
        "halved once": sentences(1, 16, 8),
        "halved three times": sentences(1, 16, 8, 4, 2),
        "in the third part of the second step": sentences(2, 4, 2),  # what the first two parts had added is discarded
        "in the first evaluation": [
            f"evaluation: out of memory with {before} examples at once; it goes on with {after} at once"
            for before, after in ((16, 8), (8, 4))
        ],
        "too small for one": sentences(2, 2, 1),
    }
    unlimited = outcome.result("unlimited")
    assert unlimited["halvings"] == 0
    for name, said in list(outcome.said.items())[1:-1]:
        assert outcome.result(name)["halvings"] == (0 if "evaluation" in name else len(said))
        assert_same_training(outcome.result(name), unlimited)

    assert outcome.status == 2
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("hfgpt: error: ")]
    assert len(errors) == 1
    assert "Memory runs out with a single example" in errors[0]
    assert "Traceback" not in outcome.stderr


def test_if_one_of_two_processes_runs_out_both_halve_and_the_training_stays_the_same(tmp_path) -> None:
    """Only the second process is limited. In the last run it is so too late for anybody to go back: none may hang."""
    limited = {"rank": 1, "num_steps": 5}
    outcome = start(
        tmp_path,
        {
            "unlimited": {"num_steps": 5},
            "at once": {"limit": 80 * MEGABYTE, "fault": [0, 0], **limited},
            "after a part": {"limit": 38 * MEGABYTE, "fault": [2, 1], "micro_batch_size": 4, **limited},
            "late": {"limit": 15 * MEGABYTE, "fault": [4, 0], **limited},
        },
        num_processes=2,
    )
    assert outcome.said == {
        "unlimited": [],
        "at once": sentences(1, 8, 4),
        "after a part": sentences(3, 4, 2),
        "late": [],
    }
    for name in ("at once", "after a part"):
        first, second = outcome.result(name, 0), outcome.result(name, 1)
        assert first["halvings"] == second["halvings"] == 1
        assert torch.equal(first["weights"], second["weights"])
        assert_same_training(first, outcome.result("unlimited"))

    assert outcome.status not in (0, 2)
    assert "can't allocate memory" in outcome.stderr


# ----------------------------------------------------------------------------------------------------------------------
# Without a limit
# ----------------------------------------------------------------------------------------------------------------------


def test_other_errors_go_their_way(laboratory) -> None:
    class Wrong(laboratory.NextToken):
        def loss(self, model, batch, num_items_in_batch):
            if model.training:
                torch.ones(2, 3) @ torch.ones(2, 3)
            return super().loss(model, batch, num_items_in_batch)

    task = laboratory.task()
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        laboratory.train(laboratory.model(), Wrong(task.train_examples, task.validation_examples))


def test_what_memory_errors_are() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60)
    assert out_of_memory(refused.value)
    assert not out_of_memory(RuntimeError("Expected all tensors to be on the same device"))
    assert not out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
def test_cut_parts_hold_each_row_once_and_in_order(rows) -> None:
    batch = {"input_ids": torch.arange(3 * rows).reshape(rows, 3), "labels": torch.arange(rows)}
    for halvings in range(5):
        parts = MicroBatching(halvings=halvings).cut([batch, batch])
        for name, value in batch.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), torch.cat([value, value]))
        assert max(len(part["labels"]) for part in parts) == max(1, -(-rows // 2**halvings))


def test_an_odd_micro_batch_is_halved_until_one_is_left() -> None:
    batching, batch = MicroBatching(), {"labels": torch.arange(5)}
    assert [batching.halve([batch]) for _ in range(3)] == [(5, 3), (3, 2), (2, 1)]
    with pytest.raises(UserError, match="single example"):
        batching.halve([batch])
