# SPDX-License-Identifier: Apache-2.0
"""The shape of a GPT, and how GPT-2's own `config.json` is read as one.

Ground floor of the house. This file travels to the Hub beside every checkpoint, so it imports nothing of hfgpt.
"""

import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

__all__ = ["HfGptConfig"]

# GPT-2 computes GELU by its tanh formula under the first name, transformers and torch under the second.
_GPT2_ACTIVATIONS = {"gelu_new": "gelu_pytorch_tanh", "gelu_pytorch_tanh": "gelu_pytorch_tanh", "gelu": "gelu"}

# Switches of GPT-2's configuration that change what is computed, with the only value that this model computes.
_GPT2_FIXED_SWITCHES = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "is_decoder": False,
}

# Fields that mean the same in every configuration of transformers.
_COMMON_FIELDS = {"architectures", "dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type"}


@strict
class HfGptConfig(PreTrainedConfig):
    r"""The shape of a GPT: a decoder-only transformer with a normalisation before each sub-layer.

    The defaults are GPT-2 "small" (124,439,808 parameters). The book's variant (*Build a Large Language Model (From
    Scratch)*, section 4.1) is `qkv_bias=False, tie_word_embeddings=False`. GPT-2's names (`n_embd`, `n_layer`,
    `n_head`, `n_positions`, `n_inner`, `activation_function`, ...) are understood on the way in.

    A Llama is `position_embedding_type="rotary", norm_type="rms_norm", hidden_act="swiglu", qkv_bias=False,
    use_bias=False`, with fewer `num_key_value_heads` from Llama 2 (70B) on, and with a `sliding_window` it is the
    first Mistral.

    Args:
        vocab_size: Number of token ids; rows of the token embedding.
        hidden_size: Width of the residual stream; a multiple of `num_attention_heads`.
        num_hidden_layers: Number of transformer blocks.
        num_attention_heads: Number of attention heads, each of width `hidden_size / num_attention_heads`.
        num_key_value_heads: Number of key and value heads, each shared by a group of `num_attention_heads /
            num_key_value_heads` query heads (grouped-query attention, Ainslie et al. 2023); the cache shrinks with
            them. 1 is multi-query attention (Shazeer 2019). Default: `num_attention_heads`, no sharing.
        sliding_window: How many tokens a token sees, itself included (Child et al. 2019; Jiang et al. 2023); at least
            2. Default: None, all those before it.
        is_causal: Whether a token sees itself and those before it only. False lifts the causal mask: every token then
            sees the whole text, no cache is made, and text cannot be generated in a way that the model was trained for.
        intermediate_size: Width between the layers of the feed-forward network. Default: 4 x `hidden_size`; with
            `"swiglu"`, whose three matrices take the place of two, two thirds of that, rounded up to a multiple of 8.
        max_position_embeddings: Longest sequence in tokens, prompt and answer together.
        position_embedding_type: `"learned"` adds a trained vector per position (GPT-2, the book); `"rotary"` rotates
            queries and keys by angles that grow with the position (Su et al. 2021); `"none"` leaves the order of
            tokens to the causal mask alone.
        rope_theta: Base of the rotary wavelengths; read only with `"rotary"`.
        hidden_act: `"gelu_pytorch_tanh"` (GPT-2's and the book's formula), `"gelu"` (exact), or `"swiglu"`, a linear
            layer gated by the SiLU of another (Shazeer 2020, equation 6).
        norm_type: `"layer_norm"` (GPT-2, the book) or `"rms_norm"`, which only scales (Zhang & Sennrich 2019).
        layer_norm_eps: Added to the variance, or the mean square, inside every normalisation.
        initializer_range: Standard deviation of the initial weights; projections into the residual stream get
            this divided by sqrt(2 x `num_hidden_layers`) (Radford et al. 2019, section 2.3).
        embedding_initializer_range: Standard deviation of the initial embeddings, where the head is not tied to them.
            Default: `initializer_range`. The book leaves PyTorch's 1.0, with which a short text is learned sooner.
        qkv_bias: Whether the query, key and value projections have a bias.
        use_bias: Whether the other linear layers of a block, and every LayerNorm, have one.
        tie_word_embeddings: Whether the output head shares the token embedding's weights.
        embedding_dropout: Dropout probability after the embeddings.
        attention_dropout: Dropout probability of the attention weights.
        residual_dropout: Dropout probability of each sub-layer's output, before it joins the residual stream.
        use_cache: Whether a forward pass without further word returns a key/value cache.
        classifier_pooling: What `HfGptForSequenceClassification` judges a text by: the vector of its `"last_token"`
            (the book), of its `"first_token"`, which in a causal model has seen nothing of the text but itself, or the
            `"mean"` of all. Padding never counts.
        bos_token_id, eos_token_id, pad_token_id: Ids of the special tokens, as the tokenizer has them, or None.

    Raises:
        ValueError: If the sizes do not fit together; the sentence names the field.
    """

    model_type = "hfgpt"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "n_positions": "max_position_embeddings",
        "n_ctx": "max_position_embeddings",
        "activation_function": "hidden_act",
        "layer_norm_epsilon": "layer_norm_eps",
        "embd_pdrop": "embedding_dropout",
        "attn_pdrop": "attention_dropout",
        "resid_pdrop": "residual_dropout",
    }

    vocab_size: int = 50257
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int | None = None
    sliding_window: int | None = None
    is_causal: bool = True
    intermediate_size: int | None = None
    max_position_embeddings: int = 1024
    position_embedding_type: Literal["learned", "rotary", "none"] = "learned"
    rope_theta: float | int = 10_000.0
    hidden_act: Literal["gelu_pytorch_tanh", "gelu", "swiglu"] = "gelu_pytorch_tanh"
    norm_type: Literal["layer_norm", "rms_norm"] = "layer_norm"
    layer_norm_eps: float | int = 1e-5
    initializer_range: float | int = 0.02
    embedding_initializer_range: float | int | None = None
    qkv_bias: bool = True
    use_bias: bool = True
    tie_word_embeddings: bool = True
    embedding_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    residual_dropout: float | int = 0.1
    use_cache: bool = True
    classifier_pooling: Literal["last_token", "first_token", "mean"] = "last_token"
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # GPT-2's names arrive as aliases inside this call, so what is derived from a size is derived after it.
        super().__post_init__(**kwargs)
        if self.intermediate_size is None:
            gated = self.hidden_act == "swiglu"
            self.intermediate_size = 8 * math.ceil(self.hidden_size / 3) if gated else 4 * self.hidden_size
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        # How tensor parallelism splits the model: each process takes its own ids, heads and hidden features.
        columns = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.fc1"]
        columns += ["mlp.fc_gate"] if self.hidden_act == "swiglu" else []  # a rule must find what it splits
        rows = ["self_attn.o_proj", "mlp.fc2"]
        plan = dict.fromkeys(columns, "colwise") | dict.fromkeys(rows, "rowwise")
        self.base_model_tp_plan = {"embed_tokens": "embedding_rowwise"} | {  # type: ignore[misc]  # not for instances
            f"layers.*.{name}": style for name, style in plan.items()
        }
        self.validate_architecture()  # now, as one sentence; `strict` runs it again, but wraps what it says

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    def validate_architecture(self) -> None:
        """Check that the sizes fit together; called at construction and again before saving."""
        positive = "vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads intermediate_size"
        for name in [*positive.split(), "max_position_embeddings", "layer_norm_eps", "rope_theta"]:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be greater than zero, but is {getattr(self, name)}.")
        if self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads}), because the heads share it in equal parts."
            )
        assert self.num_key_value_heads is not None  # derived in __post_init__
        if self.num_attention_heads % self.num_key_value_heads != 0:
            raise ValueError(
                f"num_attention_heads ({self.num_attention_heads}) must be a multiple of num_key_value_heads "
                f"({self.num_key_value_heads}), because the query heads share them in groups of one size."
            )
        if self.sliding_window is not None and self.sliding_window < 2:
            raise ValueError(
                f"sliding_window must be at least 2, the token itself and the one before it, but is "
                f"{self.sliding_window}; leave it out (null) to see all tokens."
            )
        if self.position_embedding_type == "rotary" and self.head_dim % 2 != 0:
            raise ValueError(
                f"rotary positions turn pairs of features, so hidden_size / num_attention_heads must be even, "
                f"but is {self.head_dim}."
            )
        for name in ("initializer_range", "embedding_initializer_range"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}.")
        if self.tie_word_embeddings and self.embedding_initializer_range not in (None, self.initializer_range):
            raise ValueError(
                "embedding_initializer_range needs tie_word_embeddings = False, because a tied head is the embedding."
            )
        for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a probability from 0 up to but not 1, but is {getattr(self, name)}.")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a `config.json`; one in GPT-2's layout is translated, so that GPT-2 checkpoints load as this model.

        Raises:
            ValueError: If it describes a model of another type, or a GPT-2 that this model does not compute.
        """
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type == "gpt2":
            config_dict = cls._translate_gpt2(config_dict)
        elif model_type != cls.model_type:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds a model of type {model_type!r}, but hfgpt computes its own and "
                "GPT-2's only: load it with transformers' Auto classes instead."
            )
        return config_dict, kwargs

    @classmethod
    def _translate_gpt2(cls, gpt2: dict[str, Any]) -> dict[str, Any]:
        """GPT-2's configuration in this model's names.

        Raises:
            ValueError: If GPT-2's configuration asks for something that this model does not compute.
        """
        for name, computed in _GPT2_FIXED_SWITCHES.items():
            if gpt2.get(name, computed) != computed:
                raise ValueError(
                    f"This GPT-2 checkpoint sets {name}={gpt2[name]}, which hfgpt does not compute; "
                    "load it with transformers' GPT2LMHeadModel instead."
                )
        activation = gpt2.get("activation_function", "gelu_new")
        if activation not in _GPT2_ACTIVATIONS:
            raise ValueError(
                f"This GPT-2 checkpoint uses activation_function={activation!r}; hfgpt computes "
                f"{', '.join(sorted(_GPT2_ACTIVATIONS))} only, so load it with transformers' GPT2LMHeadModel instead."
            )
        if "n_positions" in gpt2:
            gpt2 = {name: value for name, value in gpt2.items() if name != "n_ctx"}  # once the same, now unread
        renamed = {cls.attribute_map.get(name, name): value for name, value in gpt2.items()}
        known = {name for name in cls.__dataclass_fields__ if not name.startswith("_")} | _COMMON_FIELDS
        special_tokens = {"bos_token_id": 50256, "eos_token_id": 50256}  # GPT-2's defaults, where its file is silent
        translated = special_tokens | {name: value for name, value in renamed.items() if name in known}
        return translated | {"hidden_act": _GPT2_ACTIVATIONS[activation], "model_type": cls.model_type}
