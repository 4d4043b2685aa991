"""From conversations to tokens that are to be learned: the data side of instruction finetuning, in its order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import datasets
import xxhash
from accelerate import Accelerator
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from hfgpt.chat_templates import (
    EncodedConversation,
    check_conversations,
    coloured_example,
    encode_chat_prompt,
    encode_conversations,
    set_chat_template,
    special_tokens_of,
)
from hfgpt.data.conversation_batches import EncodedConversations
from hfgpt.data.conversation_split import ConversationSplits, prompt_of, split_conversations
from hfgpt.data.conversations import Message, load_conversations
from hfgpt.data.files import shortened
from hfgpt.errors import UserError
from hfgpt.tokenization import extend_tokenizer, load_tokenizer
from hfgpt.training.processes import main_process_first

from .corpus import tokenizer_fingerprint
from .instruction_config import InstructionConfig
from .readings import readings

__all__ = ["InstructionCorpus", "chat_tokenizer", "load_conversation_splits", "prepare_instruction_corpus"]

PARTS = ("train", "validation", "test")


@dataclass
class InstructionCorpus:
    """Conversations made ready: what a model is trained, validated and tested on."""

    tokenizer: PreTrainedTokenizerFast
    train: EncodedConversations
    validation: EncodedConversations
    test: datasets.Dataset
    """Columns `messages` and, where the source has it, `task`."""
    test_prompts: list[list[int]]
    """What precedes each last answer in `test`, in tokens."""
    encoded_test: EncodedConversations
    """All of `test` in tokens: what a fingerprint is made of."""
    max_answer_length: int
    """Tokens of the longest answer in `train`, its end token counted."""
    example: EncodedConversation
    """The first conversation that is trained on."""
    counts: dict[str, int]
    """What was read, removed, cut and hidden from the loss, by name."""
    fingerprint: dict[str, str]
    """Hashes of the training data, the tokenizer and the template."""
    description: list[str]
    """The same as `counts` and more, a line each."""

    def print_example(self) -> None:
        """Show the first conversation, the tokens that bear loss in a colour of their own."""
        Console().print(coloured_example(self.tokenizer, self.example))


def chat_tokenizer(config: InstructionConfig) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """The tokenizer with the template, and the tokens that were added for it.

    Raises:
        UserError: If there is no tokenizer, or the template cannot be used with it.
    """
    name = config.tokenizer or config.init_from
    tokenizer = load_tokenizer(name)
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise UserError(f"The tokenizer of {name} has no end or no padding token.")
    new_tokens: list[str] = []
    if needed := special_tokens_of(config.template):
        tokenizer, new_tokens = extend_tokenizer(tokenizer, [], needed)
    set_chat_template(tokenizer, config.template)
    return tokenizer, new_tokens


class _LoadedSplits(NamedTuple):
    splits: ConversationSplits
    description: list[str]
    num_unanswered: int


def load_conversation_splits(config: InstructionConfig, accelerator: Accelerator) -> _LoadedSplits:
    """The conversations to train on, to validate on and to test on, the same on every process; and what was read.

    Raises:
        UserError: If the source, its columns or its rows are not as the configuration says.
    """
    return main_process_first(accelerator, lambda: _load_and_split(config))


def _load_and_split(config: InstructionConfig) -> _LoadedSplits:
    parts = {
        reading.part: load_conversations(
            reading.source,
            split=reading.split,
            form=config.form,
            name=reading.config_name,
            revision=reading.revision,
            unanswered=config.unanswered,
            system_prompt=config.system_prompt,
        )
        for reading in readings(config)
    }
    given = {part: loaded.dataset for part, loaded in parts.items()}
    splits = split_conversations(
        given.pop("train"),
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        shuffle=config.shuffle_split,
        **given,
    )
    description = list(dict.fromkeys(line for loaded in parts.values() for line in loaded.description))
    return _LoadedSplits(splits, description, sum(loaded.num_dropped for loaded in parts.values()))


def prepare_instruction_corpus(
    config: InstructionConfig, loaded: _LoadedSplits, tokenizer: PreTrainedTokenizerFast, context: int
) -> InstructionCorpus:
    """Put the conversations into the template, and decide what is learned of them.

    Args:
        tokenizer: With its template. It is changed: its `model_max_length` is that of the model.
        context: Tokens that the model sees at once.

    Raises:
        UserError: If conversations are to be longer than the context, if one is too long and may not be cut or left
            out, or if the template leaves one without an answer or without its end.
    """
    if (config.max_length or 0) > context:
        raise UserError(f"max_length ({config.max_length}) is greater than the model's context ({context}).")
    max_length = config.max_length or context
    tokenizer.model_max_length = context
    splits, description = loaded.splits, []
    counts = {"unanswered": loaded.num_unanswered, **loaded.splits.counts}
    fitting: dict[str, list[EncodedConversation]] = {}
    for part in ("train", "validation"):
        messages = list(getattr(splits, part)["messages"])
        try:
            whole = encode_conversations(tokenizer, messages, loss_on=config.loss_on)
            check_conversations(whole, tokenizer)
        except UserError as error:  # numbers are those after the split
            raise UserError(f"{error} (Number as the {part} set was split from {config.source}.)") from error
        fitting[part], changed = _make_fit(part, whole, messages, max_length, config.too_long)
        counts |= {f"{part}_{name}": number for name, number in changed.items()}
        description.append(_describe(part, fitting[part], changed, max_length))
    num_tokens = sum(len(each.input_ids) for each in fitting["train"])
    num_learned = sum(sum(each.bears_loss) for each in fitting["train"])
    counts |= {"train_tokens": num_tokens, "train_masked": num_tokens - num_learned}
    prompts = [encode_chat_prompt(tokenizer, messages[:-1]) for messages in splits.test["messages"]]
    answerable = [index for index, prompt in enumerate(prompts) if len(prompt) < context]
    counts["test_too_long"] = len(prompts) - len(answerable)
    no_room = f", {counts['test_too_long']:,} prompts that fill the context left out" if counts["test_too_long"] else ""
    test = splits.test.select(answerable)
    fitting["test"] = encode_conversations(tokenizer, list(test["messages"]), loss_on=config.loss_on)
    train, validation, encoded_test = (EncodedConversations(fitting[part]) for part in PARTS)
    return InstructionCorpus(
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        test=test,
        test_prompts=[prompts[index] for index in answerable],
        encoded_test=encoded_test,
        max_answer_length=_longest_answer(fitting["train"], tokenizer, splits, config, max_length),
        example=fitting["train"][0],
        counts=counts,
        fingerprint={
            "data set": train.fingerprint(),
            "validation set": validation.fingerprint(),
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "chat template": xxhash.xxh3_64_hexdigest(str(tokenizer.chat_template).encode()),
        },
        description=[
            f"source: {config.source}",
            *loaded.description,
            *splits.description,
            *description,
            f"test: {len(answerable):,} conversations{no_room}",
        ],
    )


def _make_fit(
    part: str,
    conversations: Sequence[EncodedConversation],
    messages: Sequence[Sequence[Message]],
    max_length: int,
    too_long: str,
) -> tuple[list[EncodedConversation], dict[str, int]]:
    """The conversations that fit, and how many did not, by what became of them."""
    long = [index for index, each in enumerate(conversations) if len(each.input_ids) > max_length]
    if long and too_long == "refuse":
        question = shortened(prompt_of(messages[long[0]])[-1])
        raise UserError(
            f"{len(long):,} conversations of the {part} set are longer than {max_length} tokens, the first, which asks "
            f"{question}, with {len(conversations[long[0]].input_ids):,}: raise max_length, or set too_long to drop or "
            "truncate."
        )
    cut = [EncodedConversation(ids[:max_length], bears_loss[:max_length]) for ids, bears_loss in conversations]
    # Of one whose prompt alone is too long, nothing is left to learn when it is cut.
    lost = {index for index in long if too_long == "drop" or not any(cut[index].bears_loss[1:])}
    fitting = [each for index, each in enumerate(cut) if index not in lost]
    if not fitting:
        raise UserError(
            f"None of the {len(conversations):,} conversations of the {part} set fits into {max_length} tokens with "
            "its answer: raise max_length, or choose a shorter template or a model with a longer context."
        )
    return fitting, {"too_long": len(lost), "truncated": len(long) - len(lost)}


def _longest_answer(
    learned: Sequence[EncodedConversation],
    tokenizer: PreTrainedTokenizerFast,
    splits: ConversationSplits,
    config: InstructionConfig,
    max_length: int,
) -> int:
    """Tokens of the longest answer that is trained on, its end token counted."""
    if config.loss_on == "all":
        messages = list(splits.train["messages"])
        whole = encode_conversations(tokenizer, messages, loss_on="answer")
        learned, _ = _make_fit("train", whole, messages, max_length, config.too_long)
    return max(_longest_run(each.bears_loss) for each in learned)


def _longest_run(bears_loss: Sequence[bool]) -> int:
    """Length of the longest stretch of tokens that bear loss."""
    longest = current = 0
    for each in bears_loss:
        current = current + 1 if each else 0
        longest = max(longest, current)
    return longest


def _describe(part: str, fitting: Sequence[EncodedConversation], changed: dict[str, int], max_length: int) -> str:
    num_tokens = sum(len(each.input_ids) for each in fitting)
    num_learned = sum(sum(each.bears_loss) for each in fitting)
    notes = "".join(
        f", {changed[name]:,} longer than {max_length} tokens {what}"
        for name, what in (("too_long", "left out"), ("truncated", "cut"))
        if changed[name]
    )
    return (
        f"{part}: {len(fitting):,} conversations of {num_tokens / len(fitting):.1f} tokens on average, of which "
        f"{num_learned / num_tokens:.0%} bear loss{notes}"
    )
