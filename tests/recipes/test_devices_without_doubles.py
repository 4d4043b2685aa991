"""What is measured on a device that has no double precision, as Apple's GPU has none."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hfgpt.recipes.classification_results import class_logits
from hfgpt.recipes.validation_loss import FEWEST_BATCHES, loss_interval
from hfgpt.training.engine import start_accelerator
from hfgpt.training.events import TrainingRun
from hfgpt.training.meter import Meter
from tests.training.conftest import Laboratory


class WithoutDoubles(Tensor):
    """A tensor of such a device: doubles can be made of it on the CPU only."""

    @classmethod
    def __torch_function__(cls, function: Callable, types: Any, args: Sequence = (), kwargs: Any = None) -> Any:
        if function is Tensor.double or any(value is torch.float64 for value in (*args, *(kwargs or {}).values())):
            raise TypeError("The device does not support float64.")
        found = super().__torch_function__(function, types, args, kwargs)
        return found.as_subclass(Tensor) if function is Tensor.cpu else found


class Sums(nn.Module):
    """Two logits of each text, by which it can be told from the others."""

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        sums = input_ids.float().sum(dim=1)
        return SimpleNamespace(logits=torch.stack([sums, -sums], dim=1).as_subclass(WithoutDoubles))


@pytest.fixture
def laboratory(tmp_path) -> Laboratory:
    return Laboratory(str(tmp_path))


def test_the_logits_of_a_test_set(laboratory) -> None:
    examples = laboratory.random_sequences(5)
    found = class_logits(
        laboratory.NextToken(examples, examples), Sums(), examples, start_accelerator(laboratory.config())
    )
    expected = [float(sum(example["tokens"])) for example in examples]
    assert found.dtype == "float64"
    assert found.tolist() == [[one, -one] for one in expected]


def test_the_interval_of_a_validation_loss(laboratory) -> None:
    class Task(laboratory.NextToken):
        def evaluation_sums(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"loss": torch.tensor(2.0 * self.count_targets(batch)).as_subclass(WithoutDoubles)}

    config = laboratory.config(global_batch_size=1)
    examples, accelerator, model = laboratory.random_sequences(FEWEST_BATCHES), start_accelerator(config), Sums()
    run = TrainingRun(config, model, torch.optim.SGD([torch.zeros(1)]), accelerator, 1, Meter("tokens"))
    assert loss_interval(run, Task(examples, examples)) == pytest.approx([2.0, 2.0])
