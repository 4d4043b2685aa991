"""AdamW or Muon, with decay for matrices only, and the learning rate by the step (the book's appendix D)."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from hfgpt.errors import UserError

from .config import TrainingConfig
from .muon import MuonWithAdamW, matrices_of_blocks

__all__ = ["build_optimizer", "learning_rate_at", "parameter_groups"]


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict]:
    """Trainable parameters in two groups: matrices and embeddings decay; biases and norms do not.

    Decay pulls a weight towards zero because large weights overfit; a bias or a norm's gain has no such reason, and
    zero is no neutral value for a gain.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trainable if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim < 2], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer of the configuration.

    Raises:
        UserError: If Muon finds no matrix in a block that is trained.
    """
    if config.optimizer == "adamw":
        return _adamw(model, model.parameters(), config)
    matrices = matrices_of_blocks(model)
    if not matrices:
        raise UserError(
            "optimizer 'muon' has nothing to train: it is for the matrices of the transformer blocks, and none of them "
            "is trained here. Use optimizer 'adamw'."
        )
    muon = torch.optim.Muon(
        matrices,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.muon_momentum,
        adjust_lr_fn="match_rms_adamw",
    )
    apart = {id(matrix) for matrix in matrices}
    others = (parameter for parameter in model.parameters() if id(parameter) not in apart)
    return MuonWithAdamW(muon, _adamw(model, others, config))


def _adamw(model: nn.Module, parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) with one fused kernel for all parameters where the device has it."""
    device = next(model.parameters()).device.type
    return torch.optim.AdamW(
        parameter_groups(parameters, config.weight_decay),
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        fused=device in ("cpu", "cuda"),
    )


def learning_rate_at(step: int, num_steps: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer step `step`, counted from 0, of `num_steps`.

    Linear from 0 over `warmup_steps` (reaching the peak at step `warmup_steps`), then a half cosine, a line or a
    constant; cosine and line reach `min_learning_rate` at the last step.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    last = max(num_steps - 1, 1)
    progress = min((step - config.warmup_steps) / max(last - config.warmup_steps, 1), 1.0)
    heights = {"cosine": (1 + math.cos(math.pi * progress)) / 2, "linear": 1 - progress, "constant": 1.0}
    height = heights[config.lr_scheduler_type]
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * height
