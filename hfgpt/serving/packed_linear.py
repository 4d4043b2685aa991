"""Linear layers whose weights lie in memory as the CPU's matrix products read them.

Answering multiplies the same weights with a few rows again and again. oneDNN, which comes with torch, multiplies them
faster when they are laid out for it once ("packed"): what `torch.compile` does when it freezes a graph, here without
one. The products differ from `nn.Linear`'s by rounding only. What it is worth is measured by benchmarks/answering.py.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["packed_linears"]

logger = logging.getLogger(__name__)

ROWS = 32  # of the product that the layout is chosen for; on the CPUs tried, any other number gives the same layout


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[int]:
    """Inside the block, `model`'s linear layers compute by packed copies of their weights, where that is possible.

    It is for float32 weights on a CPU, and plain `nn.Linear` layers; all else computes as before. The copies take as
    much memory as the weights themselves and are dropped at the end. Meanwhile the weights must not change, and no
    gradients flow.

    Yields:
        The number of layers that are packed.
    """
    replaced: list[nn.Linear] = []
    try:
        for layer in model.modules():
            if isinstance(layer, nn.Linear) and _can_be_packed(layer):
                layer.forward = _packed_forward(layer)  # type: ignore[assignment, method-assign]
                replaced.append(layer)
    except (AttributeError, RuntimeError, NotImplementedError) as error:  # another torch, or no memory for the copies
        _restore(replaced)
        logger.warning("linear layers are not packed (%s): answers take longer", " ".join(str(error).split())[:200])
    try:
        yield len(replaced)
    finally:
        _restore(replaced)


def _restore(layers: list[nn.Linear]) -> None:
    for layer in layers:
        del layer.forward
    layers.clear()


def _can_be_packed(layer: nn.Linear) -> bool:
    if type(layer) is not nn.Linear or "forward" in vars(layer):  # quantised, sharded or hooked in another way
        return False
    tensors = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    plain = all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and type(tensor.data) is Tensor
        for tensor in tensors
    )
    return plain and torch.backends.mkldnn.is_available()


def _packed_forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    multiply = torch.ops.mkldnn._linear_pointwise.default
    packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
    bias = None if layer.bias is None else layer.bias.detach()

    def forward(features: Tensor) -> Tensor:
        return multiply(features, packed, bias, "none", [], "")  # no activation, which has no numbers of its own

    return forward
