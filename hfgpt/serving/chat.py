"""A conversation with a model, turn by turn, without any terminal: what is remembered, and the next words."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerFast

from hfgpt import HfGptForCausalLM
from hfgpt.chat_templates import encode_chat_prompt, stop_token_ids
from hfgpt.errors import UserError
from hfgpt.tokenization import replace_lone_surrogates

from .defaults import DEFAULT_NEW_TOKENS
from .sampling import check_sampling, choose_tokens

__all__ = ["ChatSession", "ChatSettings"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How answers are drawn; what is given as None is taken from the model's `generation_config`.

    Attributes:
        max_new_tokens: Longest answer, in tokens. Without a word of the model: 200.
        temperature: Divides the logits; 0 takes the likeliest token each time (greedy). Without a word of the model: 0.
        top_k: Draw from the so many likeliest tokens only.
        top_p: Draw from the likeliest tokens that together have this probability only (Holtzman et al. 2020).
        seed: Makes a session repeatable, from 0 to 2^63 - 1. Default: another one each time.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None


class ChatSession:
    """Asks a model question after question; it sees what was said before, as far as its context reaches.

    The keys and values of what it has read are kept between the turns. They are used as far as the next prompt, written
    anew by the chat template, begins with the same tokens: so an answer is the same as one to that prompt alone.

    Args:
        model: It is put into evaluation mode.
        tokenizer: With the chat template that the model was trained with.
        system: What the system says before all turns, and never falls out of the context. Default: nothing.
        settings: How answers are drawn.

    Attributes:
        messages: All that was said, as `{"role": ..., "content": ...}`, the system first if it says anything.
        num_fallen_out: How many turns of them the model does not see any more.
        ended_by: What ended the last answer: `"stop"`, the model itself; `"length"`, `max_new_tokens`; `"context"`, the
            end of the model's context; or `"interruption"`.

    Raises:
        UserError: If there is no chat template, a setting is out of its range, or the model is not causal.
    """

    def __init__(
        self,
        model: HfGptForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        *,
        system: str | None = None,
        settings: ChatSettings | None = None,
    ) -> None:
        if not model.config.is_causal:
            raise UserError("The model is not causal, and each token of an answer would change all before it.")
        self.model, self.tokenizer = model.eval(), tokenizer
        self._take_settings(settings or ChatSettings())
        saved = model.generation_config.eos_token_id
        self._stops = {*stop_token_ids(tokenizer), *([saved] if isinstance(saved, int) else saved or [])}
        self._system = [{"role": "system", "content": _without_lone_surrogates(system)}] if system else []
        self.ended_by: Literal["stop", "length", "context", "interruption"] = "stop"
        self._is_interrupted = False
        self.reset()

    def _take_settings(self, given: ChatSettings) -> None:
        saved: Any = self.model.generation_config
        self.max_new_tokens = given.max_new_tokens or saved.max_new_tokens or DEFAULT_NEW_TOKENS
        temperature = given.temperature
        if temperature is None:
            temperature = (1.0 if saved.temperature is None else saved.temperature) if saved.do_sample else 0.0
        if temperature == 0 and (given.top_k is not None or given.top_p is not None):
            raise UserError("top_k and top_p choose among tokens that are drawn: give a temperature above 0 with them.")
        top_k = given.top_k if given.top_k is not None else saved.top_k or None
        top_p = given.top_p if given.top_p is not None else saved.top_p
        check_sampling(
            max_new_tokens=self.max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=given.seed
        )
        self._drawing: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        self._random = np.random.default_rng(given.seed)

    def reset(self) -> None:
        """Forget all that was said, but for the system's words."""
        self.messages: list[dict[str, str]] = list(self._system)
        self.num_fallen_out = 0
        self._cache, self._read = DynamicCache(), list[int]()

    def interrupt(self) -> None:
        """End the answer that is being given, after the token at hand. Signal handlers and threads may call it."""
        self._is_interrupted = True

    def reply(self, text: str) -> Iterator[str]:
        """Yield the answer piece by piece, whole characters only; question and answer are remembered at its end.

        An answer that was interrupted, or that its reader has left, is remembered as far as it came. One without a
        character is not, nor its question.

        Raises:
            UserError: If the question leaves no room for an answer in the model's context, or is not of the model's
                vocabulary, or the model computes no finite numbers; then nothing is remembered.
        """
        question = {"role": "user", "content": _without_lone_surrogates(text)}
        prompt, self.num_fallen_out = self._prompt(question)
        self._is_interrupted = False
        self.ended_by = "interruption"
        ids: list[int] = []
        answer = shown = ""
        try:
            for token in self._tokens(prompt):
                ids.append(token)
                answer = str(self.tokenizer.decode(ids, skip_special_tokens=True))
                if not answer.endswith("\ufffd"):  # else the bytes of a character may still be incomplete
                    yield answer[len(shown) :]
                    shown = answer
            if answer != shown:
                yield answer[len(shown) :]
        finally:
            if answer.strip():
                self.messages += [question, {"role": "assistant", "content": answer}]

    def save(self, path: Path) -> None:
        """Write the conversation as one line of JSON, `{"messages": [...]}`, which training reads.

        Raises:
            UserError: If nothing was said, or the file is there or cannot be written.
        """
        if self.messages == self._system:
            raise UserError("There is nothing to save: nothing was said.")
        try:
            with path.expanduser().open("x", encoding="utf-8") as file:
                file.write(json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
        except FileExistsError as error:
            raise UserError(f"{path} is there: name a new file, so that nothing is lost.") from error
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}.") from error

    def _prompt(self, question: dict[str, str]) -> tuple[list[int], int]:
        """The tokens before the next answer, and how many of the oldest turns are left out to make room for it."""
        context, vocab_size = self.model.config.max_position_embeddings, self.model.config.vocab_size
        room = min(self.max_new_tokens, context // 2)
        turns = self.messages[len(self._system) :]
        num_fallen_out, prompt = 0, list[int]()
        for num_fallen_out in range(self.num_fallen_out, len(turns) // 2 + 1):
            seen = [*self._system, *turns[2 * num_fallen_out :], question]
            prompt = encode_chat_prompt(self.tokenizer, seen)
            if len(prompt) + room <= context:
                break
        if len(prompt) >= context:
            raise UserError(
                f"With {len(prompt)} tokens the message leaves no room for an answer in the model's context of "
                f"{context}: shorten it."
            )
        if max(prompt) >= vocab_size:
            raise UserError(
                f"The prompt has the token id {max(prompt)}, but the model knows {vocab_size} ids: use the tokenizer "
                "and the chat template that it was trained with."
            )
        return prompt, num_fallen_out

    def _tokens(self, prompt: list[int]) -> Iterator[int]:
        """The tokens of an answer, one by one; `ended_by` says afterwards why there are no more."""
        room = self.model.config.max_position_embeddings - len(prompt)
        common = takewhile(lambda pair: pair[0] == pair[1], zip(self._read, prompt[:-1], strict=False))
        num_kept = sum(1 for _ in common)
        if num_removed := len(self._read) - num_kept:
            self._cache.crop(-num_removed)
            del self._read[num_kept:]
        new = prompt[num_kept:]
        for _ in range(min(self.max_new_tokens, room)):
            token = self._choose(self._next_logits(new))
            if token in self._stops:
                self.ended_by = "stop"
                return
            if self._is_interrupted:
                return
            yield token
            new = [token]
        self.ended_by = "length" if self.max_new_tokens <= room else "context"

    @torch.inference_mode()
    def _next_logits(self, ids: list[int]) -> Tensor:
        """The logits `(1, vocabulary)` behind what was read and `ids`, which then count as read, too."""
        # While it computes, keys and values may be longer in one layer than in another: an error leaves nothing read.
        cache, read = self._cache, self._read
        self._cache, self._read = DynamicCache(), []
        input_ids = torch.tensor([ids], device=self.model.device)
        outputs = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = outputs.logits[:, -1]
        if not bool(logits.isfinite().all()):
            raise UserError("The model computes no finite numbers: its weights are damaged, or its training diverged.")
        self._cache, self._read = cache, read + ids
        return logits

    def _choose(self, logits: Tensor) -> int:
        draws = torch.tensor([self._random.random()], device=logits.device, dtype=torch.float32)
        return int(choose_tokens(logits, draws, **self._drawing))


def _without_lone_surrogates(text: str) -> str:
    clean, num_replaced = replace_lone_surrogates(text)
    if num_replaced:
        logger.warning("replaced %d lone surrogates, which are not valid Unicode, by U+FFFD", num_replaced)
    return clean
