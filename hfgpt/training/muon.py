"""Muon for the matrices of the transformer blocks, AdamW for all other weights, as one optimizer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MuonWithAdamW", "matrices_of_blocks"]


def matrices_of_blocks(model: nn.Module) -> list[nn.Parameter]:
    """The trainable matrices of what a model repeats: not those of its embeddings and heads.

    The rows of an embedding are words of their own, and no map whose directions could be made equally long.
    """
    found: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, nn.ModuleList):
            found |= {id(weight): weight for weight in module.parameters() if weight.requires_grad and weight.ndim == 2}
    return list(found.values())


class MuonWithAdamW(torch.optim.Optimizer):
    r"""Two optimizers that step together, as Muon is used (Jordan et al. 2024).

    Muon turns the momentum $M$ of a matrix's gradients into the nearest matrix whose singular values are all one: every
    direction that the gradients point to is learned at the same speed, the rare ones too. Each step is scaled to the
    length that AdamW's would have, $0.2 \sqrt{\max(\text{rows}, \text{columns})}$ times that matrix (Liu et al. 2025,
    equation 4), so that one learning rate and one weight decay serve both.

    Args:
        muon: The optimizer of the matrices.
        adamw: That of all the rest.
    """

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self.parts: tuple[torch.optim.Optimizer, ...] = (muon, adamw)
        super().__init__([dict(group) for part in self.parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """What is set in a group here, the learning rate above all, is set in the group of the part."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Step both; `closure` computes loss and gradients anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the states of both.

        Raises:
            KeyError: If the state is that of another optimizer.
        """
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
