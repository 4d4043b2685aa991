# SPDX-License-Identifier: Apache-2.0
"""A GPT from scratch, to be read from top to bottom in the order of the book.

Ground floor of the house: causal mask and attention (*Build a Large Language Model (From Scratch)*, chapter 3); the
feed-forward network, the block, the stack and the initialisation (chapter 4); the loss (section 5.1) and the
classification head (chapter 6). transformers supplies what surrounds a model: loading, saving, masks for padding and
caches, `generate`. This file travels to the Hub beside every checkpoint, so it imports nothing of hfgpt but its
siblings.

Shapes are written `(batch, tokens, hidden)`, with `head_dim = hidden / heads`.
"""

import math
import sys
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers import masking_utils
from transformers.cache_utils import Cache, DynamicCache
from transformers.dynamic_module_utils import custom_object_save
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import capture_outputs

from .configuration_hfgpt import HfGptConfig
from .conversion_hfgpt import GPT2_MASK_BUFFERS, REGISTRY_LOCK, reading_gpt2_layout
from .pooling_hfgpt import pool

__all__ = [
    "HfGptForCausalLM",
    "HfGptForSequenceClassification",
    "HfGptModel",
    "HfGptPreTrainedModel",
    "causal_lm_loss",
    "causal_mask",
]

IGNORE_INDEX = -100  # a label that bears no loss (PyTorch's and transformers' convention)


# ---------------------------------------------------------------------------------------------------------------------
# Chapter 3: attention
# ---------------------------------------------------------------------------------------------------------------------


def causal_mask(num_tokens: int) -> Tensor:
    """The triangular mask of section 3.5: token t may look at tokens 0..t and no further.

    `HfGptModel.forward` asks transformers' `create_causal_mask` for the same mask, because that one also knows padding,
    caches and every attention implementation; a test holds the two equal.

    Returns:
        Boolean tensor `(num_tokens, num_tokens)`, True where row t may see column s, that is where s <= t.
    """
    return torch.ones(num_tokens, num_tokens, dtype=torch.bool).tril()


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    r"""Scaled dot-product attention, written out (section 3.4; Vaswani et al. 2017, equation 1).

    $$ \mathrm{attention}(Q, K, V) = \mathrm{softmax}\left(\frac{Q K^\top}{\sqrt{d}} + M\right) V $$

    where the mask M is 0 where a token may look and the most negative number where it may not.

    Args:
        query: `(batch, heads, tokens, head_dim)`.
        key, value: `(batch, key_value_heads, seen_tokens, head_dim)`, the tokens of the cache before those of this
            call; each is shared by heads / key_value_heads query heads.
        attention_mask: `(batch, 1, tokens, seen_tokens)`, added to the scores, or None.

    Returns:
        The context vectors `(batch, tokens, heads, head_dim)` and the attention weights
        `(batch, heads, tokens, seen_tokens)`.
    """
    if (group := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = query @ key.transpose(2, 3) * scaling  # (batch, heads, tokens, seen_tokens)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    context = weights @ value  # (batch, heads, tokens, head_dim)
    return context.transpose(1, 2).contiguous(), weights


def rotary_angles(position_ids: Tensor, config: HfGptConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    r"""Cosine and sine of the angles $m \theta^{-2i/d}$ of position m and feature pair i (Su et al. 2021, equation 15).

    Args:
        position_ids: `(batch, tokens)`.

    Returns:
        Two tensors `(batch, 1, tokens, head_dim)`: feature i and feature i + head_dim / 2 are one pair.
    """
    feature = torch.arange(0, config.head_dim, 2, device=position_ids.device, dtype=torch.float32)
    frequencies = config.rope_theta ** (-feature / config.head_dim)  # (head_dim / 2)
    angles = position_ids[:, None, :, None].float() * frequencies  # (batch, 1, tokens, head_dim / 2)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(features: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each feature pair (a, b) of `(batch, heads, tokens, head_dim)` to (a cos - b sin, b cos + a sin)."""
    first, second = features.chunk(2, dim=-1)
    return features * cosine + torch.cat([-second, first], dim=-1) * sine


class HfGptAttention(nn.Module):
    """Masked multi-head attention (section 3.6): `num_attention_heads` attentions side by side, then one projection.

    With fewer `num_key_value_heads` each key and value head serves a group of query heads (Ainslie et al. 2023).
    """

    def __init__(self, config: HfGptConfig, layer_idx: int) -> None:
        super().__init__()
        assert config.num_key_value_heads is not None  # derived in the configuration's __post_init__
        self.config = config
        self.layer_idx = layer_idx  # where this layer's keys and values stand in the cache
        self.head_dim = config.head_dim
        self.scaling = 1 / math.sqrt(self.head_dim)
        self.is_causal = config.is_causal  # this and the next are read by transformers' attention functions
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        key_value_size = config.num_key_value_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.o_proj.writes_to_residual = True  # type: ignore[assignment]  # see _init_weights

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        past_key_values: Cache | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        batch_and_tokens = hidden_states.shape[:-1]
        by_head = (*batch_and_tokens, -1, self.head_dim)
        # (batch, tokens, hidden) -> (batch, tokens, heads, head_dim) -> (batch, heads, tokens, head_dim)
        query = self.q_proj(hidden_states).view(by_head).transpose(1, 2)
        key = self.k_proj(hidden_states).view(by_head).transpose(1, 2)
        value = self.v_proj(hidden_states).view(by_head).transpose(1, 2)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)

        # transformers lets users switch the attention where it finds this very call in the source.
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        context, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=dropout,
            sliding_window=self.config.sliding_window,  # read by flash attention, which takes no ready mask
            **kwargs,
        )
        # (batch, tokens, heads, head_dim) -> (batch, tokens, hidden)
        return self.o_proj(context.reshape(*batch_and_tokens, -1)), weights


# ---------------------------------------------------------------------------------------------------------------------
# Chapter 4: the model
# ---------------------------------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # x Phi(x), with Phi the distribution function of the standard normal (Hendrycks & Gimpel 2016)
    "gelu": F.gelu,
    # its approximation 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): section 4.3, and GPT-2
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}


class HfGptMLP(nn.Module):
    r"""The feed-forward network (section 4.3): widen, bend, narrow; each token by itself.

    $$ \mathrm{mlp}(x) = W_2\, \mathrm{gelu}(W_1 x), \qquad
       \mathrm{swiglu}(x) = W_2\, (\mathrm{silu}(W_g x) \odot W_1 x), \quad \mathrm{silu}(z) = z / (1 + e^{-z}) $$
    """

    def __init__(self, config: HfGptConfig) -> None:
        super().__init__()
        assert config.intermediate_size is not None  # derived in the configuration's __post_init__
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.is_gated = config.hidden_act == "swiglu"  # Shazeer 2020, equation 6
        if self.is_gated:
            self.fc_gate = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        else:
            self.activation = ACTIVATIONS[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.use_bias)
        self.fc2.writes_to_residual = True  # type: ignore[assignment]  # see _init_weights

    def forward(self, hidden_states: Tensor) -> Tensor:
        if self.is_gated:
            return self.fc2(F.silu(self.fc_gate(hidden_states)) * self.fc1(hidden_states))
        return self.fc2(self.activation(self.fc1(hidden_states)))


def make_norm(config: HfGptConfig) -> nn.Module:
    r"""The normalisation of one token's features, over the last dimension.

    LayerNorm (section 4.2) is $\gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta$, and RMSNorm, which leaves the
    mean as it is, $\gamma\, x / \sqrt{\mathrm{mean}(x^2) + \epsilon}$ (Zhang & Sennrich 2019, equation 4).
    """
    if config.norm_type == "rms_norm":
        return nn.RMSNorm(config.hidden_size, eps=config.layer_norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.use_bias)


class HfGptLayer(GradientCheckpointingLayer):
    r"""One transformer block (section 4.5), with a norm before each sub-layer and a shortcut around it (4.4).

    $$ x \leftarrow x + \mathrm{attention}(\mathrm{norm}(x)), \qquad x \leftarrow x + \mathrm{mlp}(\mathrm{norm}(x)) $$
    """

    def __init__(self, config: HfGptConfig, layer_idx: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config)
        self.self_attn = HfGptAttention(config, layer_idx)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = HfGptMLP(config)
        self.residual_dropout = nn.Dropout(config.residual_dropout)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotation: tuple[Tensor, Tensor] | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Tensor:
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states), attention_mask, rotation, past_key_values, **kwargs
        )
        hidden_states = hidden_states + self.residual_dropout(attended)
        transformed = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + self.residual_dropout(transformed)


# Where a process without hfgpt finds the classes in a saved folder.
AUTO_MAP = {
    "AutoConfig": "configuration_hfgpt.HfGptConfig",
    "AutoModel": "modeling_hfgpt.HfGptModel",
    "AutoModelForCausalLM": "modeling_hfgpt.HfGptForCausalLM",
    "AutoModelForSequenceClassification": "modeling_hfgpt.HfGptForSequenceClassification",
}
# Arguments of `save_pretrained` that are meant for `push_to_hub`.
HUB_OPTIONS = ("repo_id", "commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags")


class HfGptPreTrainedModel(PreTrainedModel):
    """What all heads share: initialisation, checks of the input, and what transformers wants to know of a model."""

    config: HfGptConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HfGptLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": HfGptLayer, "attentions": HfGptAttention}
    _keys_to_ignore_on_load_unexpected = GPT2_MASK_BUFFERS

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        r"""GPT-2's initialisation (Radford et al. 2019, section 2.3).

        Weights are drawn from $N(0, \sigma^2)$ and biases are zero. The 2 x layers projections that write to the
        residual stream get $\sigma / \sqrt{2 \cdot \mathrm{layers}}$, so that the stream's variance at the last layer
        does not grow with depth.
        """
        if isinstance(module, nn.Linear | nn.Embedding):
            std = self.config.initializer_range
            if isinstance(module, nn.Embedding) and self.config.embedding_initializer_range is not None:
                std = self.config.embedding_initializer_range
            elif getattr(module, "writes_to_residual", False):
                std /= math.sqrt(2 * self.config.num_hidden_layers)
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            init.ones_(module.weight)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a folder or a repository of the Hub, in this model's layout or in GPT-2's.

        The arguments, what is returned and the errors are those of `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: If GPT-2's layout is to be quantised or sharded while it is loaded.
        """
        with reading_gpt2_layout(HfGptConfig.model_type, *args, **kwargs):
            loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._weight_conversions = None  # what is saved is in this model's layout, wherever it came from
        return loaded

    def save_pretrained(  # type: ignore[override]  # the arguments not named here are in kwargs
        self,
        save_directory: str | PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save weights, configuration and this code, so that `trust_remote_code=True` can load the folder anywhere.

        The layout is this model's own even if the weights came from GPT-2's; `hfgpt convert --to gpt2` writes GPT-2's.
        The arguments are those of `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: If another state dict than the model's own is to be pushed.
        """
        hub_options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        if "max_shard_size" in kwargs:
            hub_options["max_shard_size"] = kwargs["max_shard_size"]
        if push_to_hub and state_dict is not None:
            raise ValueError("What is pushed are the model's own weights: leave out state_dict or push_to_hub.")
        self.config.auto_map = dict(AUTO_MAP)
        with REGISTRY_LOCK:  # or a thread that reads GPT-2's layout meanwhile would lend its mapping
            super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)
        if is_main_process:
            # Of this class and not of `self`: sharding and quantising derive classes that live in other files.
            custom_object_save(HfGptPreTrainedModel, save_directory)
        if push_to_hub and is_main_process:  # not by the parent, which would push the folder before the code is in it
            self.push_to_hub(hub_options.pop("repo_id", Path(save_directory).name), **hub_options)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> str:  # type: ignore[override]
        """Push weights, configuration and this code to the Hub.

        A package that this file is a part of may have a way of its own, as hfgpt has: with tokenizer, numbers, pictures
        and a card that is true of this model, searched for what is private. The arguments are those of
        `PreTrainedModel.push_to_hub`.
        """
        push_model = getattr(sys.modules.get(__package__), "_push_model", None)
        if push_model is None or getattr(self, "_hf_peft_config_loaded", False):  # an adapter alone is not a model
            return super().push_to_hub(*args, **kwargs)
        return push_model(self, *args, **kwargs)


class HfGptModel(HfGptPreTrainedModel):
    """The stack without a head (section 4.6): embeddings, blocks, final norm."""

    def __init__(self, config: HfGptConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.position_embedding_type == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.layers = nn.ModuleList(HfGptLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.norm = make_norm(config)
        self.gradient_checkpointing = False  # set by gradient_checkpointing_enable()
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Compute one vector a token.

        Args:
            input_ids: Token ids `(batch, tokens)`.
            attention_mask: `(batch, seen_tokens)`, 1 for a token and 0 for padding on either side, the tokens in the
                cache counted in; or a ready mask `(batch, 1, tokens, seen_tokens)`, in which integers and truth values
                say who may see whom, and floating-point numbers are added to the scores.
            position_ids: `(batch, tokens)`. Default: tokens are counted from 0 for each sequence, after those in
                the cache and without the padding. Where they restart and no mask and no cache are given, a new
                document begins, and documents do not see each other; only a document must fit the context, not the row.
            past_key_values: A cache to read from and write to.
            inputs_embeds: Token embeddings `(batch, tokens, hidden)` in place of `input_ids`.
            use_cache: Whether to make a cache if none is given. Default: `config.use_cache`. A model that is not
                causal makes none, because each new token changes what the tokens before it have seen.

        Returns:
            `last_hidden_state` `(batch, tokens, hidden)` after the final norm, the cache or None, and, where asked for
            by `output_hidden_states` and `output_attentions`, those of every layer.

        Raises:
            ValueError: If both or neither of `input_ids` and `inputs_embeds` are given, if the sequence is longer than
                `max_position_embeddings`, if a model that is not causal is given a cache, or (checked on CPU, outside
                tracing) if an id is outside the vocabulary.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if input_ids is not None:
            self._check_token_ids(input_ids)
            inputs_embeds = self.embed_tokens(input_ids)
        assert inputs_embeds is not None
        attention_mask = self._fit_to_tokens(attention_mask, inputs_embeds.shape[1], past_key_values)
        mask, documents = self._make_mask(inputs_embeds, attention_mask, position_ids, past_key_values)
        if use_cache and past_key_values is None and self.config.is_causal:
            past_key_values = DynamicCache(config=self.config)
        if documents is not None:
            kwargs["position_ids"] = position_ids  # flash attention finds the documents by itself, in every layer
        longest = 0  # a packed row may be longer than the longest document
        if position_ids is None:
            position_ids = self._count_positions(inputs_embeds, attention_mask, past_key_values)
            longest = inputs_embeds.shape[1]
        self._check_positions(position_ids, longest)

        hidden_states, rotation = inputs_embeds, None
        if self.config.position_embedding_type == "learned":
            hidden_states = hidden_states + self.embed_positions(position_ids)  # token + position (section 2.8)
        elif self.config.position_embedding_type == "rotary":
            rotation = rotary_angles(position_ids, self.config, inputs_embeds.dtype)
        hidden_states = self.embedding_dropout(hidden_states)

        for layer in self.layers[: self.config.num_hidden_layers]:  # speculative decoding may ask for fewer
            hidden_states = layer(
                hidden_states, attention_mask=mask, rotation=rotation, past_key_values=past_key_values, **kwargs
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values if use_cache else None
        )

    def _make_mask(
        self, inputs_embeds: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Cache | None
    ) -> tuple[Any, Tensor | None]:
        """Who may see whom, and the number of each token's document.

        The mask has the form that the attention implementation takes, and is None where that needs no telling; so are
        the documents, `(batch, tokens)`, where each row holds one.
        """
        batch_size, dtype, window = inputs_embeds.shape[0], inputs_embeds.dtype, self.config.sliding_window
        if cache is not None and not self.config.is_causal:
            raise ValueError(
                "With is_causal = False a new token changes all others: leave out past_key_values, give the whole text."
            )
        if isinstance(attention_mask, Tensor) and attention_mask.ndim == 4 and not attention_mask.is_floating_point():
            additive = torch.zeros_like(attention_mask, dtype=dtype)
            return additive.masked_fill(~attention_mask.bool(), torch.finfo(dtype).min), None
        documents = None
        if position_ids is not None and attention_mask is None and cache is None:
            documents = masking_utils.find_packed_sequence_indices(position_ids.expand(batch_size, -1))
        flash_attention = "flash_attention" in (self.config._attn_implementation or "")
        if flash_attention and documents is not None and batch_size > 1 and not is_tracing(documents):
            raise ValueError(
                f"Flash attention keeps packed documents apart in a batch of one row only, but position_ids restart in "
                f"a batch of {batch_size}: join the rows, or set the attention to sdpa or flex_attention."
            )
        make_mask, conditions = masking_utils.create_causal_mask, []
        if self.config.is_causal:  # the triangle is as in causal_mask(), and transformers finds the documents, too
            make_mask = make_mask if window is None else masking_utils.create_sliding_window_causal_mask
        else:  # create_causal_mask reads is_causal, and leaves out the triangle
            conditions += [] if window is None else [lambda batch, head, query, key: (query - key).abs() < window]
            conditions += [] if documents is None else [masking_utils.packed_sequence_mask_function(documents)]
        mask = make_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,
            and_mask_function=masking_utils.and_masks(*conditions) if conditions else None,
        )
        return mask, documents

    def _fit_to_tokens(self, attention_mask: Any, num_tokens: int, cache: Cache | None) -> Any:
        """A padding mask without the columns that a mask of a whole static cache has for tokens still to come."""
        if not isinstance(attention_mask, Tensor) or attention_mask.ndim != 2 or is_tracing(attention_mask):
            return attention_mask
        num_seen = 0 if cache is None else int(cache.get_seq_length())
        if attention_mask.shape[1] < num_seen + num_tokens:
            raise ValueError(
                f"attention_mask covers {attention_mask.shape[1]} tokens of {num_seen} in the cache + {num_tokens}."
            )
        return attention_mask[:, : num_seen + num_tokens]

    def _count_positions(self, inputs_embeds: Tensor, attention_mask: Tensor | None, cache: Cache | None) -> Tensor:
        """Positions `(batch or 1, tokens)` that count the real tokens of each sequence, wherever its padding stands."""
        num_tokens = inputs_embeds.shape[1]
        num_seen = 0 if cache is None else cache.get_seq_length()
        if attention_mask is not None and attention_mask.ndim == 2:
            return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -num_tokens:]
        return (torch.arange(num_tokens, device=inputs_embeds.device) + num_seen).unsqueeze(0)

    def _check_token_ids(self, input_ids: Tensor) -> None:
        # On an accelerator reading the values would stall every step, and under tracing there are none.
        if input_ids.device.type != "cpu" or is_tracing(input_ids) or input_ids.numel() == 0:
            return
        lowest, highest = input_ids.aminmax()
        if lowest < 0 or highest >= self.embed_tokens.num_embeddings:
            raise ValueError(
                f"Token id {int(lowest if lowest < 0 else highest)} is outside the vocabulary of "
                f"{self.embed_tokens.num_embeddings} ids; was the text encoded with another tokenizer?"
            )

    def _check_positions(self, position_ids: Tensor, length: int) -> None:
        limit = self.config.max_position_embeddings
        if position_ids.device.type == "cpu" and not is_tracing(position_ids) and position_ids.numel() > 0:
            length = max(length, int(position_ids.max()) + 1)
        if length > limit:
            raise ValueError(
                f"The sequence is {length} tokens long, more than max_position_embeddings = {limit}; "
                "shorten or split the text, or train a model with a longer context."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Chapter 5: predicting the next token
# ---------------------------------------------------------------------------------------------------------------------


def causal_lm_loss(
    logits: Tensor,
    labels: Tensor | None = None,
    shift_labels: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = IGNORE_INDEX,
    **kwargs: Any,
) -> Tensor:
    r"""Cross-entropy of the next token (section 5.1), in nats.

    $$ L = -\frac{1}{N} \sum_{t:\, y_{t+1} \neq -100} \log p(y_{t+1} \mid x_{\le t}), \quad p = \mathrm{softmax}(z_t) $$

    Args:
        logits: z, `(batch, tokens, vocabulary)`.
        labels: y, `(batch, tokens)`, aligned with the input: token t is judged by label t + 1.
        shift_labels: `(batch, tokens)`, already shifted (token t is judged by label t), in place of `labels`.
        num_items_in_batch: N. Default: the number of judged tokens in this call. Given the number in the whole
            accumulated and distributed batch, losses of its parts add up to the loss of the whole.
        ignore_index: A label that bears no loss.
        kwargs: What transformers hands to every loss, such as `vocab_size`; not read.

    Raises:
        ValueError: If the labels have not the shape of the logits' first two dimensions.
    """
    if shift_labels is None:
        if labels is None:
            raise ValueError("The loss needs labels or shift_labels.")
        shift_labels = F.pad(labels[..., 1:], (0, 1), value=ignore_index)  # the last token has no next one
    if shift_labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"Labels have shape {tuple(shift_labels.shape)}, but the logits are for {tuple(logits.shape[:-1])} "
            "(batch, tokens): give one label for each token, -100 where there is nothing to learn."
        )
    targets = shift_labels.to(logits.device).flatten()
    total = F.cross_entropy(logits.flatten(0, -2).float(), targets, ignore_index=ignore_index, reduction="sum")
    if num_items_in_batch is None:
        num_items_in_batch = (targets != ignore_index).sum()
    return total / num_items_in_batch


class HfGptForCausalLM(HfGptPreTrainedModel, GenerationMixin):
    """The GPT with its output head: next-token logits, loss and `generate` (sections 4.6 to 5.3)."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}  # the layers' plan is the configuration's
    _fsdp_plan = {"lm_head": "keep_full_weight"}  # needed again at once, in the backward pass

    def __init__(self, config: HfGptConfig) -> None:
        super().__init__(config)
        self.model = HfGptModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.loss_function = causal_lm_loss
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Compute next-token logits, and the loss if there are labels.

        Args:
            labels: `(batch, tokens)`, aligned with the input, -100 where there is nothing to learn. In their place
                `shift_labels`, already shifted by one, may be given; and `num_items_in_batch`: see `causal_lm_loss`.
            logits_to_keep: Compute logits for the last so many tokens only (0: for all), or for these positions.

        The other arguments and the errors are those of `HfGptModel.forward`.

        Returns:
            Loss (a scalar, or None), logits `(batch, kept tokens, vocabulary)`, cache, hidden states, attentions.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None or kwargs.get("shift_labels") is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _prepare_generated_length(  # type: ignore[override]  # generate() gives all arguments by name
        self, *, input_ids_length: int, inputs_tensor: Tensor, **arguments: Any
    ) -> GenerationConfig:
        # Called by `generate` before its first forward pass: better now than after a minute of tokens.
        config: GenerationConfig = super()._prepare_generated_length(
            input_ids_length=input_ids_length, inputs_tensor=inputs_tensor, **arguments
        )
        if not self.config.is_causal:
            if inputs_tensor.is_floating_point():
                raise ValueError(
                    "With is_causal = False each step reads the whole text anew: give input_ids to generate."
                )
            config.use_cache = False
        limit = self.config.max_position_embeddings
        prompt = inputs_tensor.shape[1]  # ids or embeddings; transformers counts ids only
        new_tokens = max(config.max_length - input_ids_length, 1)
        if prompt + new_tokens > limit:
            raise ValueError(
                f"A prompt of {prompt} tokens and {new_tokens} new ones do not fit into max_position_embeddings = "
                f"{limit}; shorten the prompt or lower max_new_tokens."
            )
        return config


# ---------------------------------------------------------------------------------------------------------------------
# Chapter 6: classifying a text
# ---------------------------------------------------------------------------------------------------------------------


def classification_loss(
    logits: Tensor,
    labels: Tensor,
    problem_type: str | None = None,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Mean loss over the labels: cross-entropy of the right class (section 6.6), or what the problem asks for instead.

    Args:
        logits: `(batch, num_labels)`.
        labels: One class a text, integers `(batch,)`, for `"single_label_classification"`; zeros and ones `(batch,
            num_labels)` for `"multi_label_classification"`, learned by binary cross-entropy; numbers `(batch,)` or
            `(batch, num_labels)` for `"regression"`, learned by the squared error.
        problem_type: Default, as everywhere in transformers: regression if there is one output, one class a text if the
            labels are integers, several if they are not.
        num_items_in_batch: What the sum is divided by. Default: the number of labels in this call that are not -100.

    Raises:
        ValueError: If the labels have not the shape that the problem asks for.
    """
    num_labels = logits.shape[1]
    if problem_type is None:
        several = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        problem_type = "regression" if num_labels == 1 else several
    if problem_type == "regression" and num_labels == 1 and labels.ndim == 1:
        labels = labels[:, None]
    expected = logits.shape[:1] if problem_type == "single_label_classification" else logits.shape
    if labels.shape != expected:
        raise ValueError(
            f"Labels have shape {tuple(labels.shape)}, but for {problem_type} they must be {tuple(expected)}."
        )
    logits, labels = logits.float(), labels.to(logits.device)
    if problem_type == "single_label_classification":
        total = F.cross_entropy(logits, labels, reduction="sum")
    elif problem_type == "multi_label_classification":
        total = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")
    else:
        total = F.mse_loss(logits, labels.float(), reduction="sum")
    return total / ((labels != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch)


class HfGptForSequenceClassification(HfGptPreTrainedModel):
    """The GPT with a linear head on one vector a text (section 6.5).

    `config.classifier_pooling` says which. In a causal model the last real token is the only one that has seen the
    whole text.
    """

    def __init__(self, config: HfGptConfig) -> None:
        super().__init__(config)
        self.model = HfGptModel(config)
        assert config.num_labels is not None  # 2 by default
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutputWithPast:
        """Compute class logits `(batch, num_labels)`, and the mean loss if there are labels.

        What is judged, the last token, the first, or the mean (`config.classifier_pooling`), is taken of the tokens
        whose `attention_mask` is 1, whichever side is padded; without a mask, of all. What labels may be stands at
        `classification_loss`; which problem it is, `config.problem_type` says. The other arguments and the errors are
        those of `HfGptModel.forward`, and of `pool`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        pooling = self.config.classifier_pooling
        logits = self.score(pool(outputs.last_hidden_state, attention_mask, pooling, past_key_values))
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config.problem_type, kwargs.get("num_items_in_batch"))
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
