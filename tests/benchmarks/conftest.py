"""What the tests of the benchmarks share: accelerate's state, and the number format in which a model computes."""

from collections.abc import Callable, Iterator

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch import nn

# The last such layer of the book's model, of transformers' GPT-2 and of hfgpt widens the tokens of the last block.
WIDENING = ("ff.layers.0", "mlp.c_fc", "mlp.fc1")
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


@pytest.fixture
def cleared_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What accelerate keeps for the whole process is cleared before and after; it chooses the CPU."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def formats_of() -> Callable[[nn.Module], set[str]]:
    """Gives, for a model, a set to which each forward pass will add the number format of a matrix product in it."""

    def watch(model: nn.Module) -> set[str]:
        formats: set[str] = set()
        layers = [module for name, module in model.named_modules() if name.endswith(WIDENING)]
        layers[-1].register_forward_hook(lambda _module, _inputs, output: formats.add(NAMES[output.dtype]))
        return formats

    return watch
