# SPDX-License-Identifier: Apache-2.0
"""GPT-2's weights in this model's names, and back.

Ground floor of the house. GPT-2 stores `nn.Linear` weights transposed (its `Conv1D` computes `x @ W + b`), keeps query,
key and value in one matrix, and calls everything by other names. Both directions are exact: only names, transposes and
splits, no arithmetic. This file travels to the Hub beside every checkpoint, so it imports nothing of hfgpt.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    PrefixChange,
    Transpose,
    WeightConverter,
    WeightRenaming,
    revert_weight_conversion,
)
from transformers.modeling_utils import PreTrainedModel

__all__ = ["REGISTRY_LOCK", "gpt2_config_dict", "gpt2_state_dict", "reading_gpt2_layout"]

# GPT-2's buffers of old checkpoints (the causal mask and its fill value), under the names they have after renaming.
GPT2_MASK_BUFFERS = [r"\.attn\.bias$", r"\.attn\.masked_bias$"]

# This model's names of the activations that GPT-2 has, and GPT-2's.
_GPT2_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_new", "gelu": "gelu"}

_QUERY_KEY_VALUE = [rf"\.self_attn\.{name}_proj\." for name in "qkv"]


def _gpt2_renamings_and_conversions() -> list[WeightRenaming | WeightConverter]:
    """GPT-2's names (left) as this model's (right); the order matters only in that conversions come last."""
    return [
        WeightRenaming(r"^wte\.", "model.embed_tokens."),
        WeightRenaming(r"^wpe\.", "model.embed_positions."),
        WeightRenaming(r"^h\.", "model.layers."),
        WeightRenaming(r"^ln_f\.", "model.norm."),
        WeightRenaming(r"\.ln_1\.", ".input_layernorm."),
        WeightRenaming(r"\.ln_2\.", ".post_attention_layernorm."),
        WeightRenaming(r"\.attn\.c_proj\.bias", ".self_attn.o_proj.bias"),
        WeightRenaming(r"\.mlp\.c_fc\.bias", ".mlp.fc1.bias"),
        WeightRenaming(r"\.mlp\.c_proj\.bias", ".mlp.fc2.bias"),
        # (in, out) -> (out, in)
        WeightConverter(r"\.attn\.c_proj\.weight", r"\.self_attn\.o_proj\.weight", [Transpose(0, 1)]),
        WeightConverter(r"\.mlp\.c_fc\.weight", r"\.mlp\.fc1\.weight", [Transpose(0, 1)]),
        WeightConverter(r"\.mlp\.c_proj\.weight", r"\.mlp\.fc2\.weight", [Transpose(0, 1)]),
        # (hidden, 3 x hidden) -> (3 x hidden, hidden) -> three of (hidden, hidden)
        WeightConverter(
            r"\.attn\.c_attn\.weight", [name + "weight" for name in _QUERY_KEY_VALUE], [Transpose(0, 1), Chunk(dim=0)]
        ),
        WeightConverter(r"\.attn\.c_attn\.bias", [name + "bias" for name in _QUERY_KEY_VALUE], [Chunk(dim=0)]),
    ]


REGISTRY_LOCK = threading.RLock()  # transformers keeps one registry for the whole process

# Arguments of `from_pretrained` with which a weight is sharded or quantised while it is read.
_CHANGES_WHILE_READING = ("quantization_config", "distributed_config", "tp_plan", "tp_size")


@contextmanager
def reading_gpt2_layout(model_type: str, source: Any = None, *args: Any, **kwargs: Any) -> Iterator[None]:
    """Let `from_pretrained(source, *args, **kwargs)` read GPT-2's layout, its names prefixed by `transformer.` or not.

    The mapping is registered for the time of reading only, because transformers would otherwise apply it backwards
    where a model is saved.

    Raises:
        ValueError: If weights in GPT-2's layout are to be sharded or quantised at the same time: transformers then
            fails at the transposes, or leaves what was split at its random initial values.
    """
    source = kwargs.get("pretrained_model_name_or_path", source)
    changes = [name for name in _CHANGES_WHILE_READING if kwargs.get(name) is not None]
    config_dict = PreTrainedConfig.get_config_dict(source, **kwargs)[0] if changes and source is not None else {}
    if config_dict.get("model_type") == "gpt2":
        raise ValueError(
            f"{source} is in GPT-2's layout, which cannot be loaded with {changes[0]}: load it without, or convert it "
            f"once (hfgpt convert {source} NEW_FOLDER --to hfgpt) and load the new folder."
        )
    mapping = [PrefixChange(prefix_to_remove="transformer"), *_gpt2_renamings_and_conversions()]
    with REGISTRY_LOCK:
        registered_before = get_checkpoint_conversion_mapping(model_type) or []
        register_checkpoint_conversion_mapping(model_type, mapping, overwrite=True)
        try:
            yield
        finally:
            register_checkpoint_conversion_mapping(model_type, registered_before, overwrite=True)


# Fields of the configuration that GPT-2's layout does not know, with the only value that it computes.
_GPT2_COMPUTES = {
    "position_embedding_type": "learned",
    "norm_type": "layer_norm",
    "sliding_window": None,
    "is_causal": True,
    "classifier_pooling": "last_token",
}


def _refuse_inexact(config: PreTrainedConfig) -> None:
    computes = _GPT2_COMPUTES | {"num_key_value_heads": config.num_attention_heads}
    for name, computed in computes.items():
        if getattr(config, name) != computed:
            raise ValueError(
                f"GPT-2's layout knows {name} = {computed!r} only, but this model has {getattr(config, name)!r}: it "
                "cannot be converted exactly."
            )
    if config.hidden_act not in _GPT2_ACTIVATIONS:
        raise ValueError(
            f"GPT-2's layout knows no hidden_act = {config.hidden_act!r}: this model cannot be converted exactly."
        )


def gpt2_config_dict(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of `transformers.GPT2Config` that describe this model.

    Raises:
        ValueError: If GPT-2's layout cannot hold the model exactly; the sentence says why.
    """
    _refuse_inexact(config)
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.max_position_embeddings,
        "n_ctx": config.max_position_embeddings,  # not read by transformers, but by llama.cpp's converter
        "n_embd": config.hidden_size,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_inner": None if config.intermediate_size == 4 * config.hidden_size else config.intermediate_size,
        "activation_function": _GPT2_ACTIVATIONS[config.hidden_act],
        "layer_norm_epsilon": config.layer_norm_eps,
        "initializer_range": config.initializer_range,
        "embd_pdrop": config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "resid_pdrop": config.residual_dropout,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": config.use_cache,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "id2label": config.id2label,
        "label2id": config.label2id,
        "problem_type": config.problem_type,
    }


def gpt2_state_dict(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of `model` (base model or any head) in GPT-2's names and orientation, bit for bit.

    GPT-2's layout has a bias everywhere; where the model has none, zeros are written, which changes no output. Tied
    weights appear under both names.

    Raises:
        ValueError: If GPT-2's layout cannot hold the model exactly; the sentence says why.
    """
    _refuse_inexact(model.config)
    state_dict = dict(model.state_dict())
    if not hasattr(model, "model"):  # the base model by itself
        state_dict = {f"model.{name}": weight for name, weight in state_dict.items()}
    for name, weight in list(state_dict.items()):
        if ".layers." in name or ".norm." in name:
            state_dict.setdefault(name.replace(".weight", ".bias"), weight.new_zeros(len(weight)))
    used_for_loading = getattr(model, "_weight_conversions", None)
    try:
        # What revert_weight_conversion reverts.
        model._weight_conversions = _gpt2_renamings_and_conversions()  # type: ignore[assignment]
        renamed = revert_weight_conversion(model, state_dict)
    finally:
        model._weight_conversions = used_for_loading  # type: ignore[assignment]
    heads = ("lm_head.", "score.")
    return {name if name.startswith(heads) else f"transformer.{name}": weight for name, weight in renamed.items()}
