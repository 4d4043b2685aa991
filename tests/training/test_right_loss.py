"""The loss of a step is the sum over the targets of the global batch divided by their number, however it is split.

What is computed is held against a plain loop in double precision: each sequence by itself, unpadded. Run as a script,
this file trains one step of each layout with the processes that torchrun starts.
"""

import dataclasses
import os
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import LossModule, _accumulate_gradients, _count_targets, start_accelerator, train
from hfgpt.training.events import Callback, TrainingRun
from hfgpt.training.meter import Meter
from hfgpt.training.task import Batch, Task

VOCAB_SIZE, IGNORED, ROWS = 29, -100, 8
LAYOUTS = ("padded right", "padded left", "packed")

Sequence_ = tuple[list[int], list[bool]]  # tokens, and whether each is to be predicted
Row = list[Sequence_]


class Rows(Task):
    """Rows of one sequence, padded, or of several, packed so that position_ids restart with each."""

    def __init__(self, rows: Sequence[Row], layout: str) -> None:
        self.train_examples = self.validation_examples = list(rows)  # type: ignore[assignment]
        self.layout = layout

    def collate(self, examples: Sequence[Row]) -> Batch:  # type: ignore[override]
        length = max(sum(len(tokens) for tokens, _ in row) for row in examples)
        names = ("input_ids", "labels", "attention_mask", "position_ids")
        rows: dict[str, list[list[int]]] = {name: [] for name in names}
        for row in examples:
            tokens = [token for sequence, _ in row for token in sequence]
            labels = [
                token if judged and index > 0 else IGNORED  # nothing stands before a sequence's first token
                for sequence, wanted in row
                for index, (token, judged) in enumerate(zip(sequence, wanted, strict=True))
            ]
            positions = [index for sequence, _ in row for index in range(len(sequence))]
            spare = length - len(tokens)
            content = (tokens, labels, [1] * len(tokens), positions)
            for name, values, filler in zip(names, content, (3, IGNORED, 0, None), strict=True):
                fill = list(range(spare)) if filler is None else [filler] * spare
                rows[name].append(fill + values if self.layout == "padded left" else values + fill)
        batch = {name: torch.tensor(values) for name, values in rows.items()}
        del batch["attention_mask" if self.layout == "packed" else "position_ids"]
        return batch

    def count_targets(self, batch: Batch) -> int:
        return int((batch["labels"][:, 1:] != IGNORED).sum())


def small_model(seed: int = 7) -> HfGptForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)
    return HfGptForCausalLM(HfGptConfig(vocab_size=VOCAB_SIZE, initializer_range=0.2, **sizes, **dropouts))


def by_plain_loop(rows: Sequence[Row]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients, one sequence at a time, in double precision."""
    model = small_model().double()
    total, count = torch.zeros((), dtype=torch.double), 0
    for tokens, judged in (sequence for row in rows for sequence in row):
        logits = model(input_ids=torch.tensor([tokens])).logits[0]
        for position in range(1, len(tokens)):
            if judged[position]:
                total = total - F.log_softmax(logits[position - 1], dim=-1)[tokens[position]]
                count += 1
    (total / count).backward()
    return total.item() / count, gradients_of(model)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.detach().clone()
        for name, weight in model.named_parameters()
    }


def assert_right(loss: float, gradients: dict[str, Tensor], by_hand: tuple[float, dict[str, Tensor]]) -> None:
    expected_loss, expected = by_hand
    assert loss == pytest.approx(expected_loss, rel=2e-6)
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient.double(), expected[name], rtol=1e-4, atol=2e-6 * scale, msg=name)


# ----------------------------------------------------------------------------------------------------------------------
# Any split, by the engine's own arithmetic
# ----------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class OneOf:
    """One of several processes, as the engine sees it; what they exchange is left to the test."""

    num_processes: int
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    is_main_process: bool = True

    def no_sync(self, model: nn.Module) -> Any:
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor


def by_engine(rows: Sequence[Row], layout: str, micro_batch_size: int, num_processes: int) -> tuple[float, dict]:
    """Loss and gradients as the processes of the engine compute them, one after the other."""
    task, accelerator, model = Rows(rows, layout), OneOf(num_processes), small_model()
    share = len(rows) // num_processes
    parts = [rows[start : start + share] for start in range(0, len(rows), share)]
    batches = [
        [task.collate(part[start : start + micro_batch_size]) for start in range(0, share, micro_batch_size)]
        for part in parts
    ]
    num_targets = sum(_count_targets(task, own, accelerator.device) for own in batches)
    losses, gradients = [], []
    for own in batches:
        run = TrainingRun(None, model, None, accelerator, 1, Meter(task.unit))  # type: ignore[arg-type]
        losses.append(_accumulate_gradients(run, LossModule(task, model), own, num_targets).item())
        gradients.append(gradients_of(model))
        model.zero_grad()
    return sum(losses) / num_processes, {
        name: torch.stack([one[name] for one in gradients]).mean(0) for name in gradients[0]
    }


@st.composite
def batches(draw: st.DrawFn) -> tuple[str, list[Row]]:
    """Rows of uneven length, of whose tokens many bear no loss; some rows bear none at all."""
    layout = draw(st.sampled_from(LAYOUTS))
    token, longest = st.integers(0, VOCAB_SIZE - 1), 6 if layout == "packed" else 12

    def sequences() -> st.SearchStrategy[Sequence_]:
        return st.integers(1, longest).flatmap(
            lambda length: st.tuples(
                st.lists(token, min_size=length, max_size=length),
                st.lists(st.booleans(), min_size=length, max_size=length),
            )
        )

    most = 4 if layout == "packed" else 1
    rows = draw(st.lists(st.lists(sequences(), min_size=1, max_size=most), min_size=ROWS, max_size=ROWS))
    rows[draw(st.integers(0, ROWS - 1))][0] = ([1, 2, 3], [False, True, True])  # there is at least one target
    return layout, rows


@settings(max_examples=25, deadline=None, derandomize=True)
@given(batches())
def test_loss_and_gradients_are_those_of_a_plain_loop_for_any_split(drawn: tuple[str, list[Row]]) -> None:
    layout, rows = drawn
    by_hand = by_plain_loop(rows)
    for num_processes in (1, 2):
        for micro_batch_size in (8, 4, 2, 1):
            if micro_batch_size * num_processes <= ROWS:
                assert_right(*by_engine(rows, layout, micro_batch_size, num_processes), by_hand)


def test_a_mean_of_means_would_be_found() -> None:
    """What most loops compute: the test above could tell it from the right loss."""
    rows = [[([1, 2, 3], [True] * 3)], *([[(list(range(1, 13)), [True] * 12)]] * 7)]
    task, model = Rows(rows, "padded right"), small_model()
    means = [model(**task.collate([row])).loss.item() for row in rows]
    expected, _ = by_plain_loop(rows)
    assert abs(sum(means) / len(means) - expected) > 1e-3 * expected


# ----------------------------------------------------------------------------------------------------------------------
# Real processes
# ----------------------------------------------------------------------------------------------------------------------


def some_rows(layout: str) -> list[Row]:
    chance = random.Random(layout)
    most, longest = (3, 6) if layout == "packed" else (1, 12)

    def sequence() -> Sequence_:
        length = chance.randint(2, longest)
        return [chance.randrange(VOCAB_SIZE) for _ in range(length)], [chance.random() < 0.6 for _ in range(length)]

    rows = [[sequence() for _ in range(chance.randint(1, most))] for _ in range(ROWS)]
    rows[0][0] = ([1, 2, 3], [False, True, True])
    return rows


class Gradients(Callback):
    """The gradients that the optimizer is given in the first step, and the loss that is reported."""

    def on_train_begin(self, run: TrainingRun) -> None:
        def take(*details: Any) -> None:
            self.gradients = gradients_of(run.model)

        run.optimizer.optimizer.register_step_pre_hook(take)  # type: ignore[attr-defined]

    def on_step(self, run: TrainingRun, report: Any) -> None:
        self.loss = report.loss


def train_one_step(folder: Path) -> None:
    sizes = {"max_steps": 1, "global_batch_size": ROWS, "micro_batch_size": 2}
    config = TrainingConfig(output_dir=str(folder), max_grad_norm=None, **sizes)
    accelerator = start_accelerator(config)
    for layout in LAYOUTS:
        seen = Gradients()
        train(Rows(some_rows(layout), layout), small_model(), config, accelerator, [seen])
        name = f"{layout}-{accelerator.process_index}-of-{accelerator.num_processes}.pt"
        torch.save({"loss": seen.loss, "gradients": seen.gradients}, folder / name)


def test_two_real_processes_compute_loss_and_gradients_of_a_plain_loop(tmp_path) -> None:
    with socket.socket() as free:  # a port that nobody uses now
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    completed = subprocess.run(
        [sys.executable, *launcher, __file__, str(tmp_path)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    for layout in LAYOUTS:
        by_hand = by_plain_loop(some_rows(layout))
        for rank in (0, 1):
            seen = torch.load(tmp_path / f"{layout}-{rank}-of-2.pt", weights_only=True)
            assert_right(seen["loss"], seen["gradients"], by_hand)


if __name__ == "__main__":
    train_one_step(Path(sys.argv[1]))
