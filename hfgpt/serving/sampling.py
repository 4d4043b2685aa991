"""Choosing the next token from the model's logits (the book's section 5.3), for many sequences at once."""

import math

import torch
from torch import Tensor

from hfgpt.errors import UserError

__all__ = ["check_sampling", "choose_tokens"]


def check_sampling(
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    num_samples: int = 1,
) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: One sentence with all that is wrong.
    """
    rules = {
        "max_new_tokens must be 1 or more": max_new_tokens >= 1,
        "num_samples must be 1 or more": num_samples >= 1,
        "temperature must be a finite number of 0 or more": 0 <= temperature < math.inf,
        "top_k must be 1 or more, or left out": top_k is None or top_k >= 1,
        "top_p must lie between 0 and 1": top_p is None or 0 <= top_p <= 1,
        "seed must lie between 0 and 2^63 - 1": seed is None or 0 <= seed < 2**63,
    }
    broken = [rule for rule, is_kept in rules.items() if not is_kept]
    if broken:
        raise UserError(f"{', and '.join(broken)}.")


def choose_tokens(
    logits: Tensor, draws: Tensor | None, *, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """The next token of each sequence.

    Temperature, top-k and top-p are applied in this order, as transformers does. What is left is put in a row, each
    token as wide as it is probable, and the draw says where to point: so one number decides, and the same number
    decides the same in any batch.

    Args:
        logits: `(sequences, vocabulary)`.
        draws: `(sequences,)` of numbers from 0 to below 1, on any device; not needed for a temperature of 0.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Keep the so many likeliest tokens only.
        top_p: Keep the fewest likeliest tokens that together have this probability, and at least one.

    Returns:
        Token ids `(sequences,)`.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    assert draws is not None
    scores, ids = logits.float() / temperature, None
    if top_k is not None and top_k < scores.shape[-1]:
        scores, ids = scores.topk(top_k, dim=-1)
    elif top_p is not None:
        scores, ids = scores.sort(dim=-1, descending=True)
    probabilities = scores.softmax(dim=-1)
    if top_p is not None:
        before = probabilities.cumsum(dim=-1) - probabilities  # of all that are likelier
        dropped = before >= top_p
        dropped[:, 0] = False
        probabilities = probabilities.masked_fill(dropped, 0)
    # In double precision, where there is one: rounding must not push a token's end past a draw.
    ends = probabilities.cumsum(dim=-1, dtype=torch.float32 if logits.device.type == "mps" else torch.float64)
    targets = draws.to(ends.dtype).to(ends.device)[:, None] * ends[:, -1:]
    # The first whose end lies beyond the target. Rounding may put a target on the last end of all.
    last = (probabilities > 0).long().cumsum(dim=-1).argmax(dim=-1, keepdim=True)
    places = torch.minimum(torch.searchsorted(ends, targets, right=True), last)
    return (places if ids is None else ids.gather(-1, places))[:, 0]
