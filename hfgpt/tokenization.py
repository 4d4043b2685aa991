"""GPT-2's byte-level byte-pair tokenizer: read from its files, trained on text, saved and loaded.

What is saved and seen is transformers' `PreTrainedTokenizerFast`; what encodes in bulk is tiktoken, through the
`TextEncoder` of `hfgpt.bulk_encoding`, which also says why their ids are the same. `extend_tokenizer` adds tokens.
A classifier's texts, in training as in use, become tokens by `encode_for_classification`.

The special-token rule: text never becomes a special token. `<|endoftext|>` typed by a user or found in a corpus is
encoded as ordinary bytes; only code that means it inserts the id. A saved tokenizer carries the rule as
`"split_special_tokens": true` in tokenizer_config.json, which transformers follows on loading, without hfgpt too.
tokenizer.json alone, read by the `tokenizers` library, cannot carry it. A tokenizer with a chat template, which writes
special tokens as text, is saved without it: there the template keeps them out of what users say (see
`hfgpt.chat_templates`), and where hfgpt encodes plain text it asks for the rule at each call.

Ground floor: imports nothing of ours but the errors and `hfgpt.bulk_encoding`.
"""

import json
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from hfgpt.bulk_encoding import (
    BYTE_OF_CHARACTER,
    CHARACTER_OF_BYTE,
    GPT2_PATTERN,
    CleanTexts,
    NoExactEngineError,
    TextEncoder,
    bulk_encoding,
    replace_lone_surrogates,
    token_bytes,
    unreachable_tokens,
)
from hfgpt.errors import UserError

__all__ = [
    "END_OF_TEXT",
    "GPT2_CONTEXT_LENGTH",
    "GPT2_PATTERN",
    "SPLIT_DIGITS_PATTERN",
    "TOKENIZER_FILES",
    "NoExactEngineError",
    "TextEncoder",
    "added_token_problems",
    "bulk_encoding",
    "encode_for_classification",
    "encoding_from_gpt2_files",
    "extend_tokenizer",
    "fast_tokenizer",
    "frame_texts",
    "load_tokenizer",
    "replace_lone_surrogates",
    "train_tokenizer",
    "use_for_plain_text",
]

logger = logging.getLogger(__name__)

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "encoder.json",
    "vocab.bpe",
)
"""What a saved tokenizer is made of, in the layouts that transformers and OpenAI have given it."""

END_OF_TEXT = "<|endoftext|>"
"""GPT-2's only special token: it begins, ends and separates documents, and here it also pads."""

GPT2_CONTEXT_LENGTH = 1024
"""Tokens that the four GPT-2 models see at once."""

SPLIT_DIGITS_PATTERN = GPT2_PATTERN.replace(r"\p{N}++", r"\p{N}")
"""GPT-2's pattern, but that a word holds no more than one digit."""
assert SPLIT_DIGITS_PATTERN != GPT2_PATTERN

LONGEST_WORD_LEARNED = 1000
"""Characters of a word that training looks at together, since its time grows with the square of a word's length."""

GPT2_FILE_NAMES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
"""(vocabulary, merges) as OpenAI released them, and the same two files as transformers names them."""


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerFast:
    """A tokenizer from a saved folder, a folder with GPT-2's two files, or the Hub, put under the special-token rule.

    One that has a chat template is left as it was saved, since the rule would keep the template's own tokens from being
    any. A tokenizer that names no padding token (GPT-2's on the Hub) pads with its end token, on the left.

    Raises:
        UserError: no such folder, no tokenizer in it, an unknown or unreachable Hub id, or no fast tokenizer for it.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            return fast_tokenizer(encoding_from_gpt2_files(folder), model_max_length=GPT2_CONTEXT_LENGTH)
        name_or_path, trouble = folder, "its tokenizer cannot be read"
    elif re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", str(name_or_path)) and not folder.exists():
        trouble = "there is no such folder, and the Hub gives no such tokenizer"
    else:
        raise UserError(f"{name_or_path} is no folder: name one with a saved tokenizer, or a Hub id such as gpt2")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except Exception as error:  # `tokenizers` raises bare Exceptions for files that it cannot read
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"cannot load a tokenizer from {name_or_path}, since {trouble} ({reason}): check the name and, for the "
            "Hub, the connection and HF_HUB_OFFLINE, or name a folder with tokenizer.json"
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"the tokenizer of {name_or_path} is no fast one: give one that has a tokenizer.json")
    if tokenizer.chat_template is None:
        use_for_plain_text(tokenizer)
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "left"
    return tokenizer


def use_for_plain_text(tokenizer: PreTrainedTokenizerFast) -> None:
    """Put a tokenizer under the special-token rule, by which it is also saved; it loses its chat template, if any."""
    tokenizer.chat_template = None
    tokenizer.split_special_tokens = True
    tokenizer.init_kwargs["split_special_tokens"] = True  # what is saved


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    min_frequency: int = 2,
    split_digits: bool = False,
    model_max_length: int = GPT2_CONTEXT_LENGTH,
) -> PreTrainedTokenizerFast:
    """Learns a byte-level byte-pair vocabulary with GPT-2's pattern; the same texts always give the same one.

    Ids 0 to 255 are the bytes in GPT-2's order, then come the merged tokens in the order in which they were learned,
    and `<|endoftext|>` is the last. `tokenizers` learns; the tokenizer is then built from the learned ranks alone. A
    word of more than 1,000 characters (a run of spaces, a genome) is learned from in parts of 1,000.

    Args:
        texts: the documents; any iterable of strings, read once.
        vocab_size: number of ids, at least 257: the bytes and `<|endoftext|>`.
        min_frequency: a pair seen fewer times is not merged. 2, since a pair seen once says nothing of other text.
        split_digits: each digit is a token of its own, with the space before it, so that a model sees what a number is
            made of (Touvron et al. 2023, section 2.1). Default: digits are merged as letters are, as in GPT-2.
        model_max_length: the context length in tokens of the model it is for; saved with the tokenizer.

    Raises:
        UserError: `vocab_size` is too small, or there is no text, or too little of it for so many tokens.
    """
    if isinstance(texts, str):
        raise UserError("texts is one string, whose items are characters: give a list of documents, such as [text]")
    smallest = len(BYTE_OF_CHARACTER) + 1
    if vocab_size < smallest:
        raise UserError(
            f"a vocabulary of {vocab_size} cannot hold the 256 bytes and {END_OF_TEXT}: ask for {smallest} or more"
        )
    pattern = SPLIT_DIGITS_PATTERN if split_digits else GPT2_PATTERN
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.FixedLength(LONGEST_WORD_LEARNED),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=min_frequency,
        initial_alphabet=sorted(BYTE_OF_CHARACTER),
        show_progress=False,
    )
    documents = CleanTexts(texts)
    learner.train_from_iterator(documents, trainer)
    if documents.characters == 0:
        raise UserError("there is no text to learn a vocabulary from: name a source with text in it")
    ranks = {token_bytes(token): id for token, id in learner.get_vocab().items()}
    if len(ranks) + 1 < vocab_size:
        raise UserError(
            f"{documents.characters:,} characters of text give a vocabulary of only {len(ranks) + 1}, not {vocab_size} "
            f"(merging pairs seen at least {min_frequency} times): ask for {len(ranks) + 1} or fewer, or give more text"
        )
    special_tokens = {END_OF_TEXT: len(ranks)}
    encoding = tiktoken.Encoding(
        "trained",
        pat_str=pattern,
        mergeable_ranks=ranks,
        special_tokens=special_tokens,
        explicit_n_vocab=vocab_size,
    )
    return fast_tokenizer(encoding, model_max_length=model_max_length)


def encoding_from_gpt2_files(folder: str | Path) -> tiktoken.Encoding:
    """The encoding that tiktoken calls "gpt2", or another vocabulary in GPT-2's format, from two local files.

    Args:
        folder: holds `encoder.json` and `vocab.bpe`, or `vocab.json` and `merges.txt`.

    tiktoken's own reader of these files keeps a copy under the hash of their path, and goes on giving out that copy
    after the files have changed; so they are read here.

    Raises:
        UserError: neither pair of files is there, or they are damaged or do not belong together.
    """
    vocabulary_file, merges_file = _gpt2_files(Path(folder))
    try:
        vocabulary: dict[str, int] = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        merged = [token_bytes(line.replace(" ", "")) for line in lines if line and not line.startswith("#version")]
        special_tokens = {END_OF_TEXT: vocabulary[END_OF_TEXT]}
        ranks = {token_bytes(token): id for token, id in vocabulary.items() if token not in special_tokens}
    except (ValueError, KeyError) as error:  # no JSON or UTF-8; no <|endoftext|>, or characters that stand for no byte
        raise UserError(
            f"{vocabulary_file} and {merges_file.name} hold no byte-level vocabulary with {END_OF_TEXT} "
            f"({type(error).__name__}: {error}): give GPT-2's files, or train a tokenizer"
        ) from error
    in_order_of_ids = sorted(ranks, key=ranks.__getitem__)
    if (
        [token for token in in_order_of_ids if len(token) > 1] != merged
        or len(ranks) != len(BYTE_OF_CHARACTER) + len(merged)
        or sorted(vocabulary.values()) != list(range(len(vocabulary)))
    ):
        raise UserError(
            f"{vocabulary_file} and {merges_file.name} do not belong together, since the ids must be those of the 256 "
            f"bytes, of the merges in their order, and of {END_OF_TEXT}: give two files of one model"
        )
    return tiktoken.Encoding(
        "gpt2",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens=special_tokens,
        explicit_n_vocab=len(vocabulary),
    )


def fast_tokenizer(encoding: tiktoken.Encoding, *, model_max_length: int) -> PreTrainedTokenizerFast:
    """The `PreTrainedTokenizerFast` with the ids of `encoding`.

    As in GPT-2, `<|endoftext|>` is the beginning-, end- and unknown-token. It is also the padding token, on the left,
    so that batched generation works at once: a decoder continues the last column. Pooling and losses must therefore go
    by the attention mask or the labels, never by "the first padding id".

    Args:
        encoding: vocabulary, pattern and special tokens, `<|endoftext|>` among them.
        model_max_length: tokens that the model sees at once; the tokenizer warns of longer sequences.

    Raises:
        UserError: there is no `<|endoftext|>`, or there are tokens that no merging reaches, so that ids would differ.
    """
    special_tokens = encoding._special_tokens
    if END_OF_TEXT not in special_tokens:
        raise UserError(f"the encoding {encoding.name!r} lacks {END_OF_TEXT}: give it among its special tokens")
    backend = _EncodingConverter(encoding).converted()
    if unreachable := unreachable_tokens(backend, encoding._mergeable_ranks):
        raise UserError(
            f"the encoding {encoding.name!r} has {len(unreachable):,} tokens that merging never reaches (the first has "
            f"id {unreachable[0]}): give one whose tokens all come from merges"
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )
    assert tokenizer.get_added_vocab() == special_tokens, "special tokens were given other ids"
    assert len(tokenizer) == encoding.n_vocab, "the vocabulary changed its size"
    return tokenizer


class ClassifierInputs(NamedTuple):
    """The token ids of each text (or pair), and how many were truncated and how many empty."""

    input_ids: list[list[int]]
    num_truncated: int
    num_empty: int


def encode_for_classification(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    text_pairs: Sequence[str] | None = None,
    *,
    max_length: int,
) -> ClassifierInputs:
    """Tokens of texts that are to be classified, as `pipeline` makes them with the saved tokenizer (`truncation=True`).

    Longer texts are cut on the tokenizer's `truncation_side`; of a pair, the longer text first, so that the token
    between them stays. An empty text, for which `pipeline` has no token at all, is the end-of-text token alone.

    Args:
        text_pairs: The second text of each pair; see `frame_texts`.
        max_length: Tokens of the longest, which may be a pair.
    """
    if not len(texts):
        return ClassifierInputs([], 0, 0)
    columns = [list(texts)] if text_pairs is None else [list(texts), list(text_pairs)]
    input_ids: list[list[int]] = tokenizer(*columns, split_special_tokens=True, verbose=False)["input_ids"]
    long = [row for row, ids in enumerate(input_ids) if len(ids) > max_length]
    if long:
        cut = tokenizer(
            *([column[row] for row in long] for column in columns),
            split_special_tokens=True,
            truncation=True,
            max_length=max_length,
        )
        tokenizer.backend_tokenizer.no_truncation()  # it keeps its last setting, and would save it
        for row, ids in zip(long, cut["input_ids"], strict=True):
            input_ids[row] = ids
    framing = tokenizer.num_special_tokens_to_add(pair=text_pairs is not None)
    num_empty = sum(len(ids) == framing for ids in input_ids)
    return ClassifierInputs([ids or [tokenizer.eos_token_id] for ids in input_ids], len(long), num_empty)


def frame_texts(tokenizer: PreTrainedTokenizerFast, *, before: bool = False, after: bool = False) -> None:
    """Have the tokenizer put the end-of-text token around each text, and between the two texts of a pair.

    In a packed pretraining every text stands between two of them. It is saved so, and `pipeline` does the same.
    """
    end = tokenizer.eos_token
    first, last = f"{end} " if before else "", f" {end}" if after else ""
    template = processors.TemplateProcessing(
        single=f"{first}$A{last}",
        pair=f"{first}$A {end} $B{last}",
        special_tokens=[(end, tokenizer.eos_token_id)],
    )
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template]
    )


def added_token_problems(tokens: Sequence[str], special_tokens: Sequence[str]) -> list[str]:
    """What is wrong with tokens to be added, whatever the tokenizer, a sentence each."""
    found = []
    every = [*tokens, *special_tokens]
    if not all(token.strip() for token in every):
        found.append("A token that is added must hold more than white space: leave the empty one out.")
    if broken := sorted({repr(token) for token in every if replace_lone_surrogates(token)[1]}):
        found.append(f"The added token {', '.join(broken)} holds half a surrogate pair, which no text does: mend it.")
    if repeated := sorted({repr(token) for token in every if every.count(token) > 1}):
        found.append(f"The added token {', '.join(repeated)} is given more than once: give each once, in one list.")
    return found


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str], special_tokens: Sequence[str]
) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """A copy of a byte-level tokenizer with more tokens, whose ids follow on those that there are.

    Where one token is the beginning of another, text becomes the longer one. White space before a token that does not
    itself begin with it is encoded by itself. With a new special token a chat template is left out, which a warning
    says: it keeps those tokens out of what users say that were there when it was set.

    Args:
        tokenizer: as from `load_tokenizer` or `train_tokenizer`; it is not changed.
        tokens: pieces of text that become one token wherever they stand in text, also within words.
        special_tokens: tokens that text never becomes, which only code that means them inserts.

    Returns:
        The copy, and those tokens that it has and `tokenizer` had not, in the order of their ids. Tokens that were
        there before, of the kind asked for, are left as they are.

    Raises:
        UserError: as `added_token_problems`; a token is there, but of the other kind; or it is spelt like one of the
            vocabulary that means other text.
    """
    if problems := added_token_problems(tokens, special_tokens):
        raise UserError(" ".join(problems))
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    if "ByteLevel" not in json.dumps(description["decoder"]):
        raise UserError("tokens can be added to byte-level tokenizers only: give one, such as GPT-2's, or train one")
    new = _unknown_tokens(description, tokens, special=False)
    new_special = _unknown_tokens(description, special_tokens, special=True)
    _mend_decoder(description, [*new, *new_special])
    named = (*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, "model_max_length", "padding_side", "truncation_side")
    named = (*named, "clean_up_tokenization_spaces", "chat_template", "model_input_names", "extra_special_tokens")
    settings = {name: value for name in named if (value := getattr(tokenizer, name)) is not None}
    if new_special and settings.pop("chat_template", None):
        logger.warning("the tokenizer's chat template is left out, since it knows no new special tokens: set it anew")
    has_template = "chat_template" in settings
    # Of the general class: GPT-2's own builds its decoder anew when it is loaded.
    extended = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)),
        split_special_tokens=tokenizer.split_special_tokens if has_template else True,
        **settings,
    )
    extended.add_tokens([AddedToken(token, normalized=False) for token in new])
    extended.add_special_tokens({"extra_special_tokens": new_special}, replace_extra_special_tokens=False)
    assert extended.convert_tokens_to_ids([*new, *new_special]) == list(range(len(tokenizer), len(extended)))
    return extended, [*new, *new_special]


def _unknown_tokens(description: dict[str, Any], tokens: Sequence[str], *, special: bool) -> list[str]:
    """Those of `tokens` that the tokenizer.json in `description` has not; UserError: it has one of the other kind."""
    is_special = {token["content"]: token["special"] for token in description["added_tokens"]}
    ordinary = description["model"]["vocab"].keys() - is_special.keys()
    unknown = []
    for token in tokens:
        is_known = token in is_special or _spelt_in_bytes(token) in ordinary
        if is_known and is_special.get(token, False) is not special:
            kinds = ("an ordinary", "a special") if special else ("a special", "an ordinary")
            raise UserError(
                f"{token!r} is {kinds[0]} token of the tokenizer already and cannot become {kinds[1]} one: leave it out"
            )
        if not is_known and token in ordinary:
            raise UserError(
                f"{token!r} cannot be added, since the vocabulary writes {token_bytes(token)!r} like this: leave it out"
            )
        if not is_known:
            unknown.append(token)
    return unknown


def _mend_decoder(description: dict[str, Any], tokens: Sequence[str]) -> None:
    """Make the byte-level decoder in `description` give added tokens such as "café" back as they are.

    The decoder takes each character of a token for the one of a byte, where all of them can be: the é of "café" would
    come back as the lone byte 0xE9. So such a token, which no token of the vocabulary equals, is first respelt.
    """
    misread = [token for token in tokens if set(token) <= BYTE_OF_CHARACTER.keys() and not token.isascii()]
    respell = [
        {"type": "Replace", "pattern": {"Regex": rf"\A{re.escape(token)}\z"}, "content": _spelt_in_bytes(token)}
        for token in misread
    ]
    if respell:
        description["decoder"] = {"type": "Sequence", "decoders": [*respell, description["decoder"]]}


def _spelt_in_bytes(text: str) -> str:
    """A text as a byte-level vocabulary writes it."""
    return "".join(CHARACTER_OF_BYTE[byte] for byte in text.encode("utf-8"))


class _EncodingConverter(TikTokenConverter):
    """transformers' converter from tiktoken, fed from an `Encoding` in memory instead of a file."""

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        special_tokens = sorted(encoding._special_tokens, key=encoding._special_tokens.__getitem__)
        super().__init__(vocab_file="", pattern=encoding._pat_str, extra_special_tokens=special_tokens)
        self.encoding = encoding

    # A static method in the base class, which knows files only.
    def load_tiktoken_bpe(self, tiktoken_url: str) -> dict[bytes, int]:  # type: ignore[override]
        return self.encoding._mergeable_ranks

    def tokenizer(self) -> Tokenizer:
        vocabulary, merges = self.extract_vocab_merges_from_model(self.vocab_file)
        special_tokens = self.encoding._special_tokens
        assert not vocabulary.keys() & special_tokens.keys(), "a special token is spelt like an ordinary one"
        # The special tokens stand in the model's vocabulary, as in GPT-2's own tokenizer.json: so they keep their ids
        # and `vocab_size` counts them. No merge makes them, and whole words are not looked up (`ignore_merges`, which
        # would change nothing where merging reaches every token), so the model never makes them out of text.
        return Tokenizer(models.BPE(vocabulary | special_tokens, merges, ignore_merges=False))


def _gpt2_files(folder: Path) -> tuple[Path, Path]:
    """The vocabulary file and the merges file in `folder`."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the one with {' and '.join(GPT2_FILE_NAMES[0])}")
    for vocabulary_name, merges_name in GPT2_FILE_NAMES:
        if (folder / vocabulary_name).is_file() and (folder / merges_name).is_file():
            return folder / vocabulary_name, folder / merges_name
    pairs = ", or ".join(" with ".join(names) for names in GPT2_FILE_NAMES)
    raise UserError(f"there is no tokenizer in {folder}: it needs tokenizer.json, or {pairs}")
