"""From a source of text to blocks of tokens: the data side of pretraining, in the order in which it happens."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import datasets
import numpy as np
import xxhash
from accelerate import Accelerator
from transformers import PreTrainedTokenizerFast

from hfgpt.data import (
    BlockStream,
    TextSplit,
    TokenBlocks,
    check_token_ids,
    encode_documents,
    load_text,
    split_documents,
    token_chunks,
)
from hfgpt.errors import UserError
from hfgpt.evaluation.ngram import ngram_baseline
from hfgpt.tokenization import TextEncoder, extend_tokenizer, load_tokenizer, train_tokenizer
from hfgpt.training.processes import main_process_first

from .pretrain_config import PretrainConfig

__all__ = ["Corpus", "prepare_corpus", "tokenizer_fingerprint"]


@dataclass
class Corpus:
    """Text made ready: what a language-modelling task trains on and is judged on."""

    tokenizer: PreTrainedTokenizerFast
    new_tokens: list[str]
    """The last of its tokens, which were added now."""
    train: TokenBlocks | BlockStream
    """Blocks of `input_ids` and `shift_labels`."""
    validation: TokenBlocks
    """The same from text that is not in `train`."""
    tokens_per_byte: float
    """Tokens of the validation text over its bytes of UTF-8."""
    baseline_losses: dict[str, float]
    """Nats per token of the n-gram models on the validation blocks, by name."""
    fingerprint: dict[str, str]
    """Hashes of the training data and the tokenizer."""
    description: list[str]
    """What was read, split, cut and left out, a line each."""


def prepare_corpus(config: PretrainConfig, accelerator: Accelerator) -> Corpus:
    """Load, split, tokenise and cut the text.

    The first process goes first; the others find in the cache what `datasets` keeps there, and repeat the rest with the
    same result.

    Raises:
        UserError: If the source, its columns, the tokenizer or the sizes are not as the configuration says.
    """
    # A tokenizer that cannot be loaded is better known before the text is read.
    tokenizer: PreTrainedTokenizerFast | None = None
    new_tokens: list[str] = []
    if config.tokenizer_name != "train":
        tokenizer, new_tokens = _add_tokens(load_tokenizer(config.tokenizer_name), config)

    def prepare() -> Corpus:
        split = _load_and_split(config)
        ready = (tokenizer, new_tokens) if tokenizer is not None else _learn_tokenizer(split, config)
        return _cut_into_blocks(config, split, *ready, accelerator.is_main_process)

    return main_process_first(accelerator, prepare)


def _load_and_split(config: PretrainConfig) -> TextSplit:
    documents = load_text(
        config.source,
        split=config.source_split,
        text_column=config.text_column,
        streaming=config.streaming,
        name=config.source_config,
        revision=config.source_revision,
    )
    return split_documents(
        documents, validation_fraction=config.validation_fraction, seed=config.seed, by=config.split_by
    )


def _learn_tokenizer(split: TextSplit, config: PretrainConfig) -> tuple[PreTrainedTokenizerFast, list[str]]:
    learned = train_tokenizer(
        split.train["text"],
        config.tokenizer_vocab_size,
        split_digits=config.tokenizer_split_digits,
        model_max_length=config.block_size,
    )
    return _add_tokens(learned, config)


def _add_tokens(
    tokenizer: PreTrainedTokenizerFast, config: PretrainConfig
) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """The tokenizer with the tokens that are to be added, and those that it had not."""
    if not config.added_tokens and not config.added_special_tokens:
        return tokenizer, []
    return extend_tokenizer(tokenizer, config.added_tokens, config.added_special_tokens)


def _cut_into_blocks(
    config: PretrainConfig,
    split: TextSplit,
    tokenizer: PreTrainedTokenizerFast,
    new_tokens: list[str],
    is_main_process: bool,
) -> Corpus:
    encode = TextEncoder(tokenizer)
    end_of_text_id = tokenizer.eos_token_id if config.document_separator == "end_of_text" else None

    validation_text = split.validation
    if isinstance(validation_text, datasets.IterableDataset):
        validation_text = datasets.Dataset.from_list(list(islice(validation_text, config.max_validation_documents)))
    validation_tokens = encode_documents(validation_text, encode, end_of_text_id=end_of_text_id)
    validation = _blocks("validation", validation_tokens, config, len(tokenizer))
    described = [
        f"source: {config.source}, split by {split.by}",
        f"tokenizer: {len(tokenizer):,} ids, {_origin(config.tokenizer_name)}",
        *_describe_added_tokens(config, new_tokens),
    ]
    baselines = {}
    train: TokenBlocks | BlockStream
    if isinstance(split.train, datasets.IterableDataset):
        train = BlockStream(
            split.train,
            encode,
            end_of_text_id=end_of_text_id,
            block_size=config.block_size,
            num_lanes=config.stream_lanes,
            shuffle_buffer_size=config.shuffle_buffer_size,
        )
        described.append(_describe_stream(train))
    else:
        train_tokens = encode_documents(split.train, encode, end_of_text_id=end_of_text_id)
        train = _blocks("training", train_tokens, config, len(tokenizer))
        described.append(_describe("train", len(split.train), train))
        orders = config.ngram_baselines if is_main_process else []  # only this process reports them
        baselines = _ngram_losses(orders, train_tokens, validation_tokens, validation, len(tokenizer))
    described.append(_describe("validation", len(validation_text), validation))
    return Corpus(
        tokenizer=tokenizer,
        new_tokens=new_tokens,
        train=train,
        validation=validation,
        tokens_per_byte=validation.num_tokens / sum(validation_tokens["num_bytes"]),
        baseline_losses=baselines,
        fingerprint={"data set": _fingerprint(train, config), "tokenizer": tokenizer_fingerprint(tokenizer)},
        description=described,
    )


def _blocks(side: str, tokens: datasets.Dataset, config: PretrainConfig, vocab_size: int) -> TokenBlocks:
    check_token_ids(tokens, vocab_size)
    try:
        return TokenBlocks(tokens, block_size=config.block_size, stride=config.stride)
    except UserError as error:
        raise UserError(f"The {side} split is too small: {error}") from error


def _describe(name: str, num_documents: int, blocks: TokenBlocks) -> str:
    left_out = f", {blocks.num_tokens_left_out} tokens left out" if blocks.num_tokens_left_out else ""
    return (
        f"{name}: {num_documents:,} document{'s' if num_documents != 1 else ''}, {blocks.num_tokens:,} tokens in "
        f"{len(blocks):,} blocks of {blocks.block_size}{left_out}"
    )


def _describe_stream(stream: BlockStream) -> str:
    lanes = f"{stream.num_lanes} lane{'s' if stream.num_lanes != 1 else ''}"
    return (
        f"train: a stream in {lanes} ({stream.documents.num_shards:,} pieces), cut into blocks of {stream.block_size} "
        f"and shuffled {stream.shuffle_buffer_size} blocks of a lane at a time"
    )


def _describe_added_tokens(config: PretrainConfig, new_tokens: list[str]) -> list[str]:
    asked_for = [*config.added_tokens, *config.added_special_tokens]
    if not asked_for:
        return []
    known = [repr(token) for token in asked_for if token not in new_tokens]
    was_there = f"; it had {', '.join(known)} already" if known else ""
    return [f"added tokens: {', '.join(map(repr, new_tokens)) or 'none'}{was_there}"]


def _origin(tokenizer_name: str) -> str:
    return "trained on the training text" if tokenizer_name == "train" else f"from {tokenizer_name}"


def _fingerprint(train: TokenBlocks | BlockStream, config: PretrainConfig) -> str:
    """A hash of the training tokens; of a stream, which cannot be read through first, of what it is made from."""
    if isinstance(train, TokenBlocks):
        return train.fingerprint()
    path = Path(config.source)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    origin = (config.source, config.source_config, config.source_revision, config.source_split)
    made_from = [
        (() if files else origin, config.text_column),  # files may have been moved
        (config.split_by, config.validation_fraction, config.seed, config.document_separator),
        train.settings(),
        [(file.name, file.stat().st_size, *_both_ends(file)) for file in files],
    ]
    return xxhash.xxh3_64_hexdigest(repr(made_from).encode())


def _both_ends(file: Path, size: int = 65_536) -> tuple[str, str]:
    """Hashes of the first and the last bytes of a file, which may be too large to be read through."""
    with file.open("rb") as content:
        first = content.read(size)
        content.seek(max(0, file.stat().st_size - size))
        return xxhash.xxh3_64_hexdigest(first), xxhash.xxh3_64_hexdigest(content.read(size))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """A hash of all that decides which tokens a text becomes."""
    return xxhash.xxh3_64_hexdigest(tokenizer.backend_tokenizer.to_str().encode())


def _ngram_name(order: int) -> str:
    return {1: "unigram", 2: "bigram", 3: "trigram"}.get(order, f"{order}-gram")


def _ngram_losses(
    orders: list[int],
    train_tokens: datasets.Dataset,
    validation_tokens: datasets.Dataset,
    validation: TokenBlocks,
    vocab_size: int,
) -> dict[str, float]:
    """Losses of n-gram models on exactly the targets that the neural model is judged on."""
    if not orders:
        return {}
    train_stream, validation_stream = (
        np.concatenate(token_chunks(tokens)) for tokens in (train_tokens, validation_tokens)
    )
    positions = validation.target_positions()
    return {
        _ngram_name(order): ngram_baseline(
            train_stream, validation_stream, order, vocab_size, target_positions=positions
        )
        for order in orders
    }
