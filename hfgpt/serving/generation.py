"""Continuing a prompt (the book's sections 5.3 and 4.7), by transformers' `generate`."""

import logging
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextStreamer

from hfgpt.errors import UserError
from hfgpt.tokenization import replace_lone_surrogates

from .sampling import check_sampling

__all__ = ["continue_prompt", "encode_prompt"]

logger = logging.getLogger(__name__)


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: str, *, max_new_tokens: int, max_position_embeddings: int
) -> torch.Tensor:
    """Token ids `(1, tokens)` of a prompt; the empty prompt is the token between two documents.

    Raises:
        UserError: If prompt and answer do not fit into the model's context.
    """
    prompt, num_replaced = replace_lone_surrogates(prompt)
    if num_replaced:
        logger.warning(
            "replaced %d lone surrogates of the prompt, which are not valid Unicode, by U+FFFD", num_replaced
        )
    ids = tokenizer(prompt, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if not ids:
        if tokenizer.eos_token_id is None:
            raise UserError("An empty prompt needs a tokenizer with an end-of-text token: give a prompt of some words.")
        ids = [tokenizer.eos_token_id]
    if len(ids) + max_new_tokens > max_position_embeddings:
        raise UserError(
            f"The prompt has {len(ids)} tokens, and {max_new_tokens} new ones are asked for, but the model's context "
            f"holds {max_position_embeddings}: shorten the prompt or lower max_new_tokens."
        )
    return torch.tensor([ids])


def continue_prompt(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    max_new_tokens: int,
    num_samples: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    streamer: TextStreamer | None = None,
) -> Iterator[str]:
    """Yield `num_samples` continuations of `prompt`, one after the other, without the prompt.

    Args:
        max_new_tokens: Longest continuation, in tokens; the end-of-text token ends it before.
        temperature: Divides the logits; 0 takes the likeliest token each time (greedy).
        top_k: Draw from the so many likeliest tokens only.
        top_p: Draw from the likeliest tokens that together have this probability only (Holtzman et al. 2020).
        seed: Makes the samples repeatable, from 0 to 2^63 - 1. The global random state is left as it was in any case.
        streamer: Shows tokens as they are generated.

    Raises:
        UserError: If prompt and answer do not fit into the model's context, the prompt's tokens are not the model's,
            or a number is out of its range.
    """
    check_sampling(
        max_new_tokens=max_new_tokens,
        num_samples=num_samples,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    limit = model.config.max_position_embeddings
    input_ids = encode_prompt(tokenizer, prompt, max_new_tokens=max_new_tokens, max_position_embeddings=limit)
    if (largest := int(input_ids.max())) >= model.config.vocab_size:
        raise UserError(
            f"The prompt has the token id {largest}, but the model knows {model.config.vocab_size} ids: "
            "use the tokenizer that it was trained with."
        )
    input_ids = input_ids.to(model.device)
    drawing = {"temperature": temperature, "top_k": top_k or 0, "top_p": 1.0 if top_p is None else top_p}
    for index in range(num_samples):
        devices = [model.device] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.seed() if seed is None else torch.manual_seed(seed + index)
            output = model.generate(  # type: ignore[operator]
                input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=max_new_tokens,
                streamer=streamer,
                **({"do_sample": True, **drawing} if temperature > 0 else {"do_sample": False}),
            )
        yield str(tokenizer.decode(output[0, input_ids.shape[1] :], skip_special_tokens=True))
