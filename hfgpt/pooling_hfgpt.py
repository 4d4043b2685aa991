# SPDX-License-Identifier: Apache-2.0
"""From one vector a token to one vector a text (the book's section 6.5).

Ground floor of the house. Which tokens are real, the `attention_mask` says, and nothing else: padding on either side,
and a padding token that is also a text's own, change nothing. This file travels to the Hub beside every checkpoint, so
it imports nothing of hfgpt.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache

__all__ = ["pool", "pooled_position", "real_tokens"]


def real_tokens(hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Which of the tokens are no padding, boolean `(batch, tokens)`.

    Args:
        hidden_states: `(batch, tokens, hidden)`.
        attention_mask: `(batch, seen_tokens)`, 1 for a token and 0 for padding, of which the last ones are these
            tokens. Without one, or with a ready mask of more dimensions, all tokens are real.
    """
    if attention_mask is None or attention_mask.ndim != 2:
        return torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
    return attention_mask[:, -hidden_states.shape[1] :].to(hidden_states.device).bool()


def pooled_position(real: Tensor, pooling: str) -> Tensor:
    """Index of each text's first or last real token, `(batch,)`; 0 where a text has none.

    Args:
        real: Boolean `(batch, tokens)`, as `real_tokens` gives it.
        pooling: `"first_token"` or `"last_token"`.
    """
    if pooling == "first_token":
        return real.int().argmax(dim=-1)  # of equal values, the first
    return (torch.arange(real.shape[1], device=real.device) * real).argmax(dim=-1)


def pool(
    hidden_states: Tensor, attention_mask: Tensor | None, pooling: str, past_key_values: Cache | None = None
) -> Tensor:
    r"""One vector a text, `(batch, hidden)`.

    The mean $\frac{1}{n} \sum_{t\ \mathrm{real}} h_t$ is taken in fp32, and is zero where a text has no token.

    Args:
        hidden_states: `(batch, tokens, hidden)`.
        attention_mask: See `real_tokens`.
        pooling: `HfGptConfig.classifier_pooling`.
        past_key_values: The cache, these tokens counted in.

    Raises:
        ValueError: If tokens that pooling needs are in the cache, which does not hold their vectors.
    """
    if pooling != "last_token" and past_key_values is not None:
        num_seen = int(past_key_values.get_seq_length())
        if num_seen > hidden_states.shape[1]:
            raise ValueError(
                f"classifier_pooling = {pooling!r} needs the whole text, but {num_seen - hidden_states.shape[1]} of "
                "its tokens are in the cache only: leave out past_key_values, give the whole text."
            )
    real = real_tokens(hidden_states, attention_mask)
    if pooling == "mean":
        total = hidden_states.float().masked_fill(~real[:, :, None], 0.0).sum(dim=1)
        return (total / real.sum(dim=1, keepdim=True).clamp(min=1)).to(hidden_states.dtype)
    position = pooled_position(real, pooling)
    rows = torch.arange(position.shape[0], device=position.device)  # `len` would fix the batch size of an export
    return hidden_states[rows, position]
