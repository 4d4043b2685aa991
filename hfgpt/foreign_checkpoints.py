# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the book's code and of nanoGPT, recognised by their names and given this model's.

The model's wing, just above the model. `recognise` is a pure function: a state dict in, and out come the configuration,
the weights in this model's names, and what is worth saying of them; `hfgpt.serving.loading` reads the files. What a
state dict does not hold is asked for or said, never made up in silence.

Both code bases store `nn.Linear` weights as this model does, so that weights are renamed and split, not changed. Two
things are arithmetic, equal to the original within rounding: the merging of LoRA layers, and the bias of a classifier's
head (`_fold_head_bias`).

Sources: rasbt/LLMs-from-scratch (package `llms_from_scratch`: ch04, ch06, appendix_e, kv_cache.gpt2) and
karpathy/nanoGPT (model.py, train.py).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from .configuration_hfgpt import HfGptConfig
from .modeling_hfgpt import HfGptForCausalLM, HfGptForSequenceClassification, HfGptPreTrainedModel

__all__ = ["ForeignCheckpoint", "HiddenAct", "recognise"]

HiddenAct = Literal["gelu", "gelu_pytorch_tanh"]

# The number of heads cannot be seen in the weights. GPT-2's four models give each head 64 features.
GPT2_HEADS = {768: 12, 1024: 16, 1280: 20, 1600: 25}

# nanoGPT's model_args, and which of ours each one is; a key more is a fork's, and may change what is computed.
MODEL_ARGS = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "block_size": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "bias": "use_bias",
    "dropout": "residual_dropout",
}

_QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass(frozen=True)
class _Layout:
    """How a code base names the modules of a GPT, beside this model's names for them."""

    owner: str
    tokens: str  # the embeddings
    positions: str
    final_norm: str
    head: str
    layers: str
    layer_modules: Mapping[str, tuple[str, ...]]  # three of ours where one matrix holds query, key and value
    mask: str  # a buffer of each layer
    mask_is_true_where: Literal["seen", "hidden"]
    hidden_act: HiddenAct

    def parameters(self, ours: Mapping[str, Tensor], num_layers: int, old_norms: bool) -> dict[str, list[str]]:
        """The names of all parameters that this layout must have, each with those of `ours` that it fills.

        Args:
            ours: This model's state dict, by which it is known which modules have a bias.
            old_norms: Whether LayerNorms call their parameters `scale` and `shift`, as the book's own do.
        """
        modules: dict[str, tuple[str, ...]] = {
            self.tokens: ("model.embed_tokens",),
            self.positions: ("model.embed_positions",),
            self.final_norm: ("model.norm",),
            self.head: ("lm_head",) if "lm_head.weight" in ours else ("score",),
        }
        for layer in range(num_layers):
            for theirs, names in self.layer_modules.items():
                modules[f"{self.layers}{layer}.{theirs}"] = tuple(f"model.layers.{layer}.{name}" for name in names)
        parameters = {}
        for theirs, names in modules.items():
            norm = old_norms and names[0].endswith("norm")
            for kind, their_kind in (("weight", "scale" if norm else "weight"), ("bias", "shift" if norm else "bias")):
                if f"{names[0]}.{kind}" in ours:
                    parameters[f"{theirs}.{their_kind}"] = [f"{name}.{kind}" for name in names]
        return parameters


_BOOK = _Layout(
    owner="the book's GPTModel",
    tokens="tok_emb",
    positions="pos_emb",
    final_norm="final_norm",
    head="out_head",
    layers="trf_blocks.",
    layer_modules={
        "norm1": ("input_layernorm",),
        **{f"att.W_{name}": (ours,) for name, ours in zip(("query", "key", "value"), _QUERY_KEY_VALUE, strict=True)},
        "att.out_proj": ("self_attn.o_proj",),
        "norm2": ("post_attention_layernorm",),
        "ff.layers.0": ("mlp.fc1",),
        "ff.layers.2": ("mlp.fc2",),
    },
    mask="att.mask",
    mask_is_true_where="hidden",
    hidden_act="gelu_pytorch_tanh",
)
_BOOK_FUSED = replace(
    _BOOK,
    owner="the book's GPTModelFast",
    layer_modules={
        **{name: ours for name, ours in _BOOK.layer_modules.items() if not name.startswith("att.")},
        "att.qkv": _QUERY_KEY_VALUE,
        "att.proj": ("self_attn.o_proj",),
    },
)
_NANOGPT = _Layout(
    owner="nanoGPT's GPT",
    tokens="transformer.wte",
    positions="transformer.wpe",
    final_norm="transformer.ln_f",
    head="lm_head",
    layers="transformer.h.",
    layer_modules={
        "ln_1": ("input_layernorm",),
        "attn.c_attn": _QUERY_KEY_VALUE,
        "attn.c_proj": ("self_attn.o_proj",),
        "ln_2": ("post_attention_layernorm",),
        "mlp.c_fc": ("mlp.fc1",),
        "mlp.c_proj": ("mlp.fc2",),
    },
    mask="attn.bias",
    mask_is_true_where="seen",
    hidden_act="gelu",
)


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A checkpoint of another code base, recognised.

    Attributes:
        description: What it is: the code base and the shape, in one clause.
        notes: Sentences about what was assumed, merged or left out.
        config: The shape as this model's configuration.
        head: Which head it has.
        weights: All weights of that model, in this model's names.
    """

    description: str
    notes: tuple[str, ...]
    config: HfGptConfig
    head: Literal["causal-lm", "classification"]
    weights: dict[str, Tensor]

    def to_model(self) -> HfGptPreTrainedModel:
        """The model with these weights (not copies of them), in evaluation mode."""
        model = _model_without_memory(self.config, self.head)
        model.load_state_dict(self.weights, strict=True, assign=True)
        model.tie_weights()
        return model.eval()


def recognise(
    state_dict: Mapping[str, Tensor],
    model_args: Mapping[str, Any] | None = None,
    *,
    num_attention_heads: int | None = None,
    lora_alpha: float | None = None,
    hidden_act: HiddenAct | None = None,
) -> ForeignCheckpoint:
    """Tell whose GPT a state dict is, and give its weights this model's names.

    Known are the book's `GPTModel` (also with a key/value cache) and `GPTModelFast`, its classifier (an `out_head` with
    another number of rows than `tok_emb`) and its LoRA layers, which are merged; and nanoGPT's `GPT`. Prefixes of
    `torch.compile` and `DistributedDataParallel` are taken off. The head is tied only if it equals the token embedding
    bit for bit.

    Args:
        state_dict: Names and weights, as the code base saved them.
        model_args: nanoGPT's, which state the number of heads and the dropout; the rest of it is checked.
        num_attention_heads: Default: as in `model_args`, or GPT-2's at one of its four widths.
        lora_alpha: The alpha of the LoRA layers, which the weights do not tell.
        hidden_act: Default: the formula by tanh for the book. nanoGPT computed the same until June 2023 (its pull
            request 274), and the exact GELU since: exact, unless `model_args` are older than that (without `bias`).

    Raises:
        ValueError: If the state dict is of another model, or what must be known is not; the message is a clause that
            follows on the file's name.
    """
    weights = {re.sub(r"^(?:module\.|_orig_mod\.)+", "", name): weight for name, weight in state_dict.items()}
    weights, notes = _merge_lora(weights, lora_alpha)
    layout = _layout_of(weights)
    notes += _drop_masks(weights, layout)

    head_weight, token_embedding = (_matrix(weights, name) for name in (layout.head, layout.tokens))
    is_causal_lm = len(head_weight) == len(token_embedding)
    tied = is_causal_lm and torch.equal(head_weight, token_embedding)
    head_bias = None if is_causal_lm else weights.pop(f"{layout.head}.bias", None)
    shape = _shape(weights, layout)
    shape["num_attention_heads"], more = _number_of_heads(shape["hidden_size"], model_args, num_attention_heads)
    notes += more
    _check_model_args(model_args, shape)
    shape["hidden_act"], more = _activation(layout, model_args, hidden_act)
    notes += more
    if model_args is not None:
        dropout = model_args.get("dropout", 0.0)
        shape |= dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), dropout)
    if not is_causal_lm:
        shape["num_labels"] = len(head_weight)
    config = HfGptConfig(**shape, tie_word_embeddings=tied)
    head: Literal["causal-lm", "classification"] = "causal-lm" if is_causal_lm else "classification"

    renamed = _rename(weights, layout, _model_without_memory(config, head).state_dict(), config.num_hidden_layers)
    if not is_causal_lm:
        notes.append(
            "It judges a text by the last token given to it, as the book does: pad on the right with the token that it "
            "was trained with, and give no attention_mask."
        )
        if head_bias is not None:
            _fold_head_bias(renamed, head_bias)
            notes.append(
                "The bias of its head stands in the bias of the last LayerNorm, because hfgpt's head has none; the "
                "logits are the same within rounding."
            )
    return ForeignCheckpoint(_describe(layout, config, head), tuple(notes), config, head, renamed)


def _model_without_memory(config: HfGptConfig, head: str) -> HfGptPreTrainedModel:
    with torch.device("meta"):
        return HfGptForCausalLM(config) if head == "causal-lm" else HfGptForSequenceClassification(config)


def _merge_lora(weights: dict[str, Tensor], alpha: float | None) -> tuple[dict[str, Tensor], list[str]]:
    r"""Put the book's LoRA layers (appendix E) into the matrices that they adapt.

    The book computes $x W^\top + \alpha\, x A B$ with A `(in, rank)` and B `(rank, out)`, and does not divide by the
    rank: $W + \alpha (A B)^\top$.
    """
    if alpha is not None and not math.isfinite(alpha):
        raise ValueError(f"an alpha of {alpha} has no meaning: give --lora-alpha the number that it was trained with.")
    adapted = [name.removesuffix(".lora.A") for name in weights if name.endswith(".lora.A")]
    if not adapted:
        if alpha is not None:
            raise ValueError("it has no LoRA layers, so that an alpha has no meaning: leave out --lora-alpha.")
        return weights, []
    if alpha is None:
        raise ValueError(
            f"it holds {len(adapted)} LoRA layers, whose alpha is not among the weights: give the one that they were "
            "trained with by --lora-alpha."
        )
    merged = dict(weights)
    ranks = set()
    for name in adapted:
        parts = {part: merged.pop(f"{name}.{part}", None) for part in ("linear.weight", "lora.A", "lora.B")}
        weight, down, up = parts.values()
        if weight is None or down is None or up is None:
            lacking = next(part for part, value in parts.items() if value is None)
            raise ValueError(f"it lacks {name}.{lacking}, which belongs to its LoRA layer: it is damaged.")
        if down.ndim != 2 or up.ndim != 2 or (up.shape[1], down.shape[0], down.shape[1]) != (*weight.shape, len(up)):
            raise ValueError(
                f"{name}.lora.A of shape {tuple(down.shape)} and lora.B of shape {tuple(up.shape)} do not fit "
                f"{name}.linear.weight of shape {tuple(weight.shape)}: it is damaged, or its LoRA is not the book's."
            )
        ranks.add(len(up))
        merged[f"{name}.weight"] = (weight.float() + alpha * (down.float() @ up.float()).T).to(weight.dtype)
        if f"{name}.linear.bias" in merged:
            merged[f"{name}.bias"] = merged.pop(f"{name}.linear.bias")
    rank = " and ".join(map(str, sorted(ranks)))
    return merged, [f"{len(adapted)} LoRA layers of rank {rank} were merged with alpha = {alpha:g}."]


def _layout_of(weights: Mapping[str, Tensor]) -> _Layout:
    if any(name.startswith(_BOOK.layers) for name in weights):
        fused = any(".att.qkv." in name for name in weights)
        return _BOOK_FUSED if fused else _BOOK
    if any(name.startswith(_NANOGPT.layers) for name in weights):
        combined = weights.get(f"{_NANOGPT.layers}0.attn.c_attn.weight")
        if combined is not None and combined.ndim == 2 and combined.shape[1] == 3 * combined.shape[0]:
            raise ValueError("its weights are in GPT-2's layout: give the folder with its config.json instead.")
        return _NANOGPT
    if any(re.match(r"(?:model\.)?layers\.\d+\.self_attn\.|h\.\d+\.attn\.", name) for name in weights):
        raise ValueError("its weights are in a layout of transformers': give the folder with its config.json instead.")
    first = ", ".join(sorted(weights)[:3])
    raise ValueError(
        f"its weights are named neither as the book's GPTModel nor as nanoGPT's GPT (but {first}, ...): these two and "
        "the folders of hfgpt and GPT-2 can be converted."
    )


def _drop_masks(weights: dict[str, Tensor], layout: _Layout) -> list[str]:
    """Take the causal masks out of `weights`, after a look at each: another mask would be another model."""
    pattern = re.compile(rf"{re.escape(layout.layers)}\d+\.{re.escape(layout.mask)}")
    masks = {name: weights.pop(name) for name in list(weights) if pattern.fullmatch(name)}
    if not masks:
        return []
    context = len(_matrix(weights, layout.positions))
    seen = torch.ones(context, context, dtype=torch.bool).tril()
    for name, mask in masks.items():
        if mask.shape[-2:] != seen.shape or mask.numel() != seen.numel():
            raise ValueError(
                f"{name} has shape {tuple(mask.shape)}, but {layout.positions}.weight is for {context} "
                "positions: it is damaged or of another model."
            )
        allowed = mask.reshape(seen.shape).bool()
        if not torch.equal(allowed if layout.mask_is_true_where == "seen" else ~allowed, seen):
            raise ValueError(f"{name} is not the causal mask, which is the only one that hfgpt computes.")
    return [f"{len(masks)} buffers with the causal mask were left out."]


def _matrix(weights: Mapping[str, Tensor], module: str) -> Tensor:
    name = f"{module}.weight"
    if name not in weights:
        raise ValueError(f"it lacks {name}: it is damaged or of another model.")
    if weights[name].ndim != 2:
        raise ValueError(f"{name} has {weights[name].ndim} dimensions and not 2: it is damaged or of another model.")
    return weights[name]


def _shape(weights: Mapping[str, Tensor], layout: _Layout) -> dict[str, Any]:
    """The fields of the configuration that can be seen in the weights."""
    vocab_size, hidden_size = _matrix(weights, layout.tokens).shape
    numbers = [re.match(rf"{re.escape(layout.layers)}(\d+)\.", name) for name in weights]
    theirs = {names[0]: name for name, names in layout.layer_modules.items()}
    query, feed_forward = theirs["self_attn.q_proj"], theirs["mlp.fc1"]
    biases = [name for name in weights if name.endswith(".bias")]
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_hidden_layers": len({number[1] for number in numbers if number}),
        "intermediate_size": len(_matrix(weights, f"{layout.layers}0.{feed_forward}")),
        "max_position_embeddings": len(_matrix(weights, layout.positions)),
        "qkv_bias": any(name.endswith(f".{query}.bias") for name in biases),
    }
    if layout is _NANOGPT:  # the book's other layers always have a bias
        shape["use_bias"] = any(not name.endswith(f".{query}.bias") for name in biases)
    return shape


def _number_of_heads(
    hidden_size: int, model_args: Mapping[str, Any] | None, given: int | None
) -> tuple[int, list[str]]:
    stated = (model_args or {}).get("n_head")
    if stated is not None:
        if given not in (None, stated):
            raise ValueError(f"its model_args say n_head = {stated}: leave out --num-attention-heads {given}.")
        return stated, []
    if given is not None:
        return given, []
    if hidden_size not in GPT2_HEADS:
        raise ValueError(
            f"the number of heads cannot be seen in the weights, and width {hidden_size} is none of GPT-2's: give it "
            "by --num-attention-heads."
        )
    heads = GPT2_HEADS[hidden_size]
    return heads, [f"{heads} heads are assumed, GPT-2's number at this width (--num-attention-heads for another one)."]


def _check_model_args(model_args: Mapping[str, Any] | None, shape: Mapping[str, Any]) -> None:
    for name, value in (model_args or {}).items():
        if name not in MODEL_ARGS:
            raise ValueError(
                f"its model_args hold {name!r}, which nanoGPT does not know: it is of a fork, which may compute "
                "something else."
            )
        seen = shape.get(MODEL_ARGS[name], value)  # dropout cannot be seen in the weights
        if value != seen:
            raise ValueError(f"its model_args say {name} = {value}, but by its weights it is {seen}: it is damaged.")


def _activation(
    layout: _Layout, model_args: Mapping[str, Any] | None, given: HiddenAct | None
) -> tuple[HiddenAct, list[str]]:
    if given is not None:
        return given, []
    if layout is not _NANOGPT:
        return layout.hidden_act, []
    if model_args is not None and "bias" not in model_args:
        return "gelu_pytorch_tanh", ["GELU by the tanh formula is assumed, nanoGPT's while its model_args had no bias."]
    return layout.hidden_act, [
        "The exact GELU is assumed, nanoGPT's since June 2023; for an older checkpoint say --hidden-act "
        "gelu_pytorch_tanh."
    ]


def _rename(
    weights: Mapping[str, Tensor], layout: _Layout, ours: Mapping[str, Tensor], num_layers: int
) -> dict[str, Tensor]:
    """The weights in this model's names; every one of them must be there, of the right shape, and no other."""
    parameters = layout.parameters(ours, num_layers, old_norms=f"{layout.final_norm}.scale" in weights)
    missing = [name for name in parameters if name not in weights]
    foreign = [name for name in weights if name not in parameters]
    for problem, names in (("lacks {} of the weights of", missing), ("has {} weights too many for", foreign)):
        if names:
            listed = ", ".join(names[:3]) + (", ..." if names[3:] else "")
            raise ValueError(
                f"it {problem.format(len(names))} {layout.owner} ({listed}): it is damaged or of another model."
            )
    formats = {weight.dtype for weight in weights.values()}
    if len(formats) > 1 or not weights[f"{layout.tokens}.weight"].is_floating_point():
        names = sorted(str(number_format).removeprefix("torch.") for number_format in formats)
        raise ValueError(f"its weights have the number format {' and '.join(names)}: give them all one of floats.")
    renamed = {}
    for name, our_names in parameters.items():
        first = ours[our_names[0]]
        expected = (len(our_names) * len(first), *first.shape[1:])
        if weights[name].shape != expected:
            raise ValueError(
                f"{name} has shape {tuple(weights[name].shape)}, but the other weights ask for {expected}: it is "
                "damaged or of another model."
            )
        # Parts of one matrix would share its memory, which no checkpoint format saves well.
        parts = weights[name].chunk(len(our_names)) if len(our_names) > 1 else [weights[name]]
        for our_name, part in zip(our_names, parts, strict=True):
            renamed[our_name] = part.clone() if len(our_names) > 1 else part.contiguous()
    return renamed


def _fold_head_bias(weights: dict[str, Tensor], bias: Tensor) -> None:
    r"""Give a classifier without a head bias the logits of one with it, through the last LayerNorm's bias.

    With $h = n + \beta$, the output of the last LayerNorm, $W h + b = W (n + \beta + d)$ for every d with $W d = b$;
    the smallest such d is taken. There is one wherever the rows of W, one a class, are linearly independent.
    """
    matrix, target = weights["score.weight"].double(), bias.double()
    if bias.shape != matrix.shape[:1]:
        raise ValueError(f"out_head.bias has shape {tuple(bias.shape)} for {len(matrix)} classes: it is damaged.")
    if not (matrix.isfinite().all() and target.isfinite().all()):
        raise ValueError("out_head holds values that are not finite: it is damaged.")
    shift = torch.linalg.pinv(matrix) @ target
    if not torch.allclose(matrix @ shift, target, rtol=1e-9, atol=1e-9):
        raise ValueError(
            "the rows of out_head.weight are linearly dependent, and hfgpt's head has no bias, so that out_head.bias "
            "finds no place."
        )
    norm_bias = weights["model.norm.bias"]
    weights["model.norm.bias"] = (norm_bias.double() + shift).to(norm_bias.dtype)


def _describe(layout: _Layout, config: HfGptConfig, head: str) -> str:
    biases = "with all biases" if config.qkv_bias else "without biases in q, k and v"
    if not config.use_bias:
        biases = "without biases"
    if head == "classification":
        output = f"a classifier of {config.num_labels} classes"
    else:
        output = "a head tied to the embedding" if config.tie_word_embeddings else "a head of its own"
    return (
        f"{layout.owner}: {config.num_hidden_layers} layers of width {config.hidden_size}, "
        f"{config.num_attention_heads} heads, context {config.max_position_embeddings:,}, vocabulary "
        f"{config.vocab_size:,}, {biases}, {output}"
    )
