"""Answering many prompts at once, each token for token as `generate` would answer it alone.

What makes it fast: prompts of similar length are computed together; keys and values stand in a cache of fixed size
(`slot_cache`); an answer that ends makes room for the next prompt, so the batch stays full while others go on
(continuous batching: G.-I. Yu et al., "Orca", OSDI 2022); and on a CPU weights are laid out for it (`packed_linear`).
"""

import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedTokenizerBase

from hfgpt import HfGptForCausalLM
from hfgpt.errors import UserError

from .packed_linear import packed_linears
from .sampling import check_sampling, choose_tokens
from .slot_cache import SlotCache

__all__ = ["DEFAULT_BATCH_SIZE", "Answer", "answer_prompts"]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 32
"""Prompts answered at once: more gain little on a CPU, where attention then reads its keys from memory."""

REFILL_SHARE = 0.25
"""New prompts enter when this share of the batch has become free: one by one, each would cost a pass of its own.

Tried at 30M on a CPU, 440 prompts whose answers end after 20 tokens on average and 64 at most: where the whole batch
had to be free it took 1.1 to 1.2 times as long.
"""


class Answer(NamedTuple):
    """What the model has said to a prompt."""

    text: str
    """Without special tokens."""
    token_ids: list[int]
    """Without the token that ended it."""
    finished: bool
    """Whether such a token ended it; else it was cut off at its greatest length."""


@dataclass
class _Row:
    """A prompt on its way to an answer."""

    index: int
    prompt: Sequence[int]
    max_new_tokens: int
    draws: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """A number for each token, where tokens are drawn."""
    token_ids: list[int] = field(default_factory=list)


@torch.inference_mode()
def answer_prompts(
    model: HfGptForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    stop_token_ids: Sequence[int],
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    first_index: int = 0,
    on_progress: Callable[[int], object] | None = None,
) -> list[Answer]:
    """The answers to `prompts`, in their order.

    Which prompts are computed together changes no answer, but where rounding decides between two tokens that are as
    likely as each other. A sampled answer is a function of the seed and the prompt's index.

    Args:
        model: It is put into evaluation mode meanwhile. Of its `generation_config` nothing is read.
        tokenizer: Makes text of the answers' tokens.
        prompts: Token ids, with all that the template puts before the answer.
        stop_token_ids: Any of them ends an answer; none of them: all answers are of full length.
        max_new_tokens: Greatest length of an answer. Where the model's context has less room behind a prompt, that
            prompt's answer ends with the context, which is logged.
        temperature: Divides the logits; 0, the default, takes the likeliest token each time (greedy).
        top_k: Draw from the so many likeliest tokens only. Default: from all.
        top_p: Draw from the likeliest tokens that together have this probability only (Holtzman et al. 2020).
        seed: Makes samples repeatable, from 0 to 2^63 - 1. Default: others each time. The global random state is
            neither read nor changed.
        batch_size: Prompts computed at once; halved, with a warning, where memory does not hold them.
        first_index: The index of the first prompt, where these are a part of a greater number.
        on_progress: Called with the number of prompts that have been answered since the last call.

    Raises:
        UserError: If a prompt is empty, leaves no room for an answer or is not of the model's vocabulary, a single one
            is too much for memory, the model computes no finite numbers, or an argument is not as described.
    """
    check_sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}: give 1 or more.")
    _check_model(model)
    rows = _make_rows(model, prompts, max_new_tokens, first_index)
    if temperature > 0:
        seed = secrets.randbits(63) if seed is None else seed
        for row in rows:
            row.draws = np.random.default_rng([seed, row.index]).random(row.max_new_tokens)
    answers: dict[int, Answer] = {}

    def finish(row: _Row, ended: bool) -> None:
        text = tokenizer.decode(row.token_ids, skip_special_tokens=True)
        answers[row.index] = Answer(str(text), row.token_ids, ended)
        if on_progress is not None:
            on_progress(1)

    # The longest first: if memory does not hold a batch, that shows at once.
    rows.sort(key=lambda row: (len(row.prompt) + row.max_new_tokens, row.index), reverse=True)
    with _ready_to_answer(model):
        while rows:
            batch = _Batch(model, set(stop_token_ids), temperature, top_k, top_p, finish)
            try:
                batch.answer(rows, batch_size)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if batch_size == 1:
                    raise UserError(
                        f"Memory runs out with a single prompt of {len(rows[0].prompt)} tokens: use a device with "
                        "more, or a smaller model."
                    ) from error
            else:
                break
            del batch  # and its cache, before there is a smaller one
            clear_device_cache(garbage_collection=True)
            logger.warning("out of memory with %d prompts at once; it goes on with %d", batch_size, batch_size // 2)
            batch_size //= 2
            rows = [row for row in rows if row.index not in answers]
            for row in rows:
                row.token_ids.clear()
    return [answers[index] for index in sorted(answers)]


def _check_model(model: HfGptForCausalLM) -> None:
    if not model.config.is_causal:
        raise UserError(
            "The model is not causal, and each token of an answer would change all before it: use generate."
        )


def _make_rows(
    model: HfGptForCausalLM, prompts: Sequence[Sequence[int]], max_new_tokens: int, first_index: int
) -> list[_Row]:
    context, vocab_size = model.config.max_position_embeddings, model.config.vocab_size
    rows = []
    for index, prompt in enumerate(prompts, start=first_index):
        if not prompt:
            raise UserError(f"Prompt {index + 1} has no token: give it at least one.")
        if len(prompt) >= context:
            raise UserError(
                f"Prompt {index + 1} has {len(prompt)} tokens, which leaves no room for an answer in the model's "
                f"context of {context}: shorten it."
            )
        if strange := [token for token in (min(prompt), max(prompt)) if not 0 <= token < vocab_size]:
            raise UserError(
                f"Prompt {index + 1} has the token id {strange[0]}, but the model knows {vocab_size} ids: use the "
                "tokenizer that it was trained with."
            )
        rows.append(_Row(index, prompt, min(max_new_tokens, context - len(prompt))))
    if shortened := sum(row.max_new_tokens < max_new_tokens for row in rows):
        logger.warning(
            "%d of %d answers end before %d new tokens, where the model's context of %d ends",
            shortened, len(rows), max_new_tokens, context,
        )  # fmt: skip
    return rows


@contextmanager
def _ready_to_answer(model: HfGptForCausalLM) -> Iterator[None]:
    """The model in evaluation mode, its weights packed, and an attention that takes a mask."""
    in_training = [module for module in model.modules() if module.training]
    implementation = model.config._attn_implementation
    model.eval()
    if implementation not in ("eager", "sdpa"):  # flash and flex attention take none of this form
        model.set_attn_implementation("sdpa")
    try:
        with packed_linears(model):
            yield
    finally:
        for module in in_training:
            module.training = True
        if model.config._attn_implementation != implementation:
            model.set_attn_implementation(implementation)


class _Batch:
    """Prompts that are answered together; others take the place of those that are done."""

    def __init__(
        self,
        model: HfGptForCausalLM,
        stop_token_ids: set[int],
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        finish: Callable[[_Row, bool], None],
    ) -> None:
        self.model, self.stop_token_ids, self.finish = model, stop_token_ids, finish
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.active: list[_Row] = []  # the row of each slot

    def answer(self, rows: Sequence[_Row], num_slots: int) -> None:
        """Answer all; `finish` is called with each."""
        waiting = deque(rows)
        num_slots = min(num_slots, len(rows))
        capacity = max(len(row.prompt) + row.max_new_tokens for row in rows)
        self.cache = SlotCache(self.model.config, num_slots, capacity, like=self.model.lm_head.weight)
        refill = max(1, round(num_slots * REFILL_SHARE))
        while waiting or self.active:
            num_free = num_slots - len(self.active)
            if waiting and (num_free >= refill or not self.active):
                self._admit([waiting.popleft() for _ in range(min(num_free, len(waiting)))])
            else:
                self._step()

    def _admit(self, rows: list[_Row]) -> None:
        """Read prompts, and choose the first token of each answer."""
        device = self.model.device
        ends = torch.tensor([len(row.prompt) - 1 for row in rows], device=device)
        # Padded on the right, where no token of a prompt sees it.
        input_ids = pad_sequence([torch.tensor(row.prompt) for row in rows], batch_first=True).to(device)
        filled = DynamicCache()  # without the configuration, so that it keeps all tokens even where a window is seen
        hidden_states = self.model.model(input_ids=input_ids, past_key_values=filled, use_cache=True).last_hidden_state
        logits = self.model.lm_head(hidden_states[torch.arange(len(rows), device=device), ends])
        if not bool(logits.isfinite().all()):
            raise UserError("The model computes no finite numbers: its weights are damaged, or its training diverged.")
        self.cache.admit(filled, len(rows))
        self.active += rows
        self._choose(logits, range(len(self.active) - len(rows), len(self.active)))

    def _step(self) -> None:
        """One more token for each answer."""
        device = self.model.device
        positions = [len(row.prompt) + len(row.token_ids) - 1 for row in self.active]
        outputs = self.model(
            input_ids=torch.tensor([[row.token_ids[-1]] for row in self.active], device=device),
            attention_mask=self.cache.begin_step(positions),
            position_ids=torch.tensor(positions, device=device)[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self._choose(outputs.logits[:, -1], range(len(self.active)))

    def _choose(self, logits: Tensor, slots: range) -> None:
        """Choose a token for each of these slots, and free those whose answer ends."""
        draws = None
        if self.temperature > 0:
            rows = [self.active[slot] for slot in slots]
            draws = torch.tensor([row.draws[len(row.token_ids)] for row in rows], dtype=torch.float64)
        chosen = choose_tokens(logits, draws, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        # From the last to the first: what moves into a free slot has had its turn.
        for slot, token in zip(reversed(slots), reversed(chosen.tolist()), strict=True):
            row = self.active[slot]
            ended = token in self.stop_token_ids
            if not ended:
                row.token_ids.append(token)
            if ended or len(row.token_ids) == row.max_new_tokens:
                self.finish(row, ended)
                self.cache.remove(slot)
                self.active[slot] = self.active[-1]
                self.active.pop()
