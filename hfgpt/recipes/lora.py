r"""Low-rank additions to the matrices of a model's blocks (LoRA, Hu et al. 2021; the book's appendix E).

A matrix W stays as it is, and $\frac{\alpha}{r} B A$ of rank r is added to it, with A drawn from torch's global
generator and B zero at first. peft does the adding; what is saved is a plain model, into which the additions are
merged, and beside it what a run needs to go on.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hfgpt import HfGptForCausalLM, HfGptPreTrainedModel
from hfgpt.errors import UserError

__all__ = [
    "UNMERGED_WEIGHTS",
    "add_lora",
    "add_lora_to_language_model",
    "count_trained",
    "describe_trained",
    "load_unmerged",
    "merged_weights",
    "save_unmerged",
]

UNMERGED_WEIGHTS = "unmerged_weights.safetensors"
"""Beside the weights of a checkpoint, with LoRA: what cannot be told from them."""

# Every matrix of a block, by the last part of its name.
_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc_gate", "fc2")


def add_lora(
    model: HfGptPreTrainedModel, rank: int, alpha: float, dropout: float, *, also_trained: Sequence[nn.Module] = ()
) -> None:
    """Freeze a model, and add low-rank matrices, which are trained, to every matrix of its blocks.

    Args:
        model: It is changed in place.
        rank, alpha, dropout: r and alpha of the additions, and the dropout of their input.
        also_trained: Modules of the model that are not frozen.

    Raises:
        UserError: If peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("trainable = 'lora' needs the package peft: pip install 'hfgpt[lora]'.") from error
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    targets = [name for name in _TARGETS if name in names]
    scale = cast("int", alpha)  # which it is annotated as, but it is only divided by the rank
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=targets), model)
    for module in also_trained:
        module.requires_grad_(True)


def add_lora_to_language_model(
    model: HfGptForCausalLM, rank: int, alpha: float, dropout: float, *, has_new_tokens: bool
) -> None:
    """Add low-rank matrices to a language model; its embeddings and output head are trained if they must learn tokens.

    The rows of new tokens are all alike at first: a model that could not change them would never tell its new tokens
    from each other. So the embeddings, and the head where it is not tied to them, are then trained whole.

    Args:
        model, rank, alpha, dropout: As in `add_lora`.
        has_new_tokens: Whether tokens were added to the vocabulary since the model was trained.

    Raises:
        UserError: If peft is not installed.
    """
    also_trained = [model.model.embed_tokens, model.lm_head] if has_new_tokens else []
    add_lora(model, rank, alpha, dropout, also_trained=also_trained)


def count_trained(module: nn.Module) -> int:
    """Numbers that the optimizer changes."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def describe_trained(module: nn.Module) -> str:
    """How many of a module's parameters are trained, in words."""
    trained = count_trained(module)
    return f"{trained:,} of {sum(parameter.numel() for parameter in module.parameters()):,} parameters"


def merged_weights(module: nn.Module, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Weights with the additions merged, under the names that they have without LoRA.

    Args:
        module: The model, or a module that holds it; without LoRA, its weights come back as they are.
        weights: A copy of what `state_dict()` of the module gave. Default: those that it holds now.
    """
    weights = module.state_dict() if weights is None else weights
    scalings = {name: part.scaling["default"] for name, part in module.named_modules() if hasattr(part, "lora_A")}
    plain = {}
    for name, weight in weights.items():
        matrix, _, kind = name.partition(".base_layer.")  # peft's name of what it adds to
        if kind == "weight":
            down, up = (weights[f"{matrix}.lora_{which}.default.weight"].float() for which in "AB")
            weight = weight + (scalings[matrix] * (up @ down)).to(weight.dtype)
        if not _is_addition(name):
            plain[f"{matrix}.{kind}" if kind else name] = weight
    return plain


def save_unmerged(module: nn.Module, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """With LoRA, write what merging loses to a checkpoint's folder: the additions and what they are added to.

    A sum does not tell what was added: a run that goes on needs both parts, bit for bit. Without LoRA the plain weights
    say all, and nothing is written.

    Args:
        module: The model, or a module that holds it.
        folder: It may not exist yet.
        weights: As in `merged_weights`.
    """
    names = _unmerged_names(module)
    if not names:
        return
    weights = module.state_dict() if weights is None else weights
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: weights[name].contiguous() for name in names}, folder / UNMERGED_WEIGHTS)


def load_unmerged(module: nn.Module, folder: Path) -> None:
    """With LoRA, take over what `save_unmerged` wrote, on top of the checkpoint's plain weights.

    Args:
        module: The model, or a module that holds it, to which the additions have been made.

    Raises:
        UserError: If the folder was written by a run without LoRA, or with additions of another rank.
    """
    names = _unmerged_names(module)
    if not names:
        return
    path, own = folder / UNMERGED_WEIGHTS, module.state_dict()
    unmerged = load_file(path) if path.is_file() else {}
    if {name: weight.shape for name, weight in unmerged.items()} != {name: own[name].shape for name in names}:
        raise UserError(
            f"{folder} cannot be resumed from with trainable = 'lora', because "
            f"{'its LoRA weights have other shapes' if unmerged else f'it has no {UNMERGED_WEIGHTS}'}: give what "
            "it was trained with, or begin a new run from its weights with --init_from."
        )
    module.load_state_dict(unmerged, strict=False)


def _unmerged_names(module: nn.Module) -> list[str]:
    return [name for name in module.state_dict() if _is_addition(name) or name.endswith(".base_layer.weight")]


def _is_addition(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name
