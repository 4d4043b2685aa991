r"""Text to token ids in bulk: tiktoken under the vocabulary of a `PreTrainedTokenizerFast`, with identical ids.

Two engines know the same vocabulary. The tokenizer that is saved beside a model runs on `tokenizers`; data preparation
runs tiktoken, because it is faster. Their ids are identical by construction, not by luck, and `bulk_encoding` refuses a
vocabulary for which it cannot show that:

    tiktoken merges, again and again, the adjacent pair whose union has the lowest id, leftmost first;
    `tokenizers` merges the adjacent pair that stands first in the list of merges, leftmost first.

Let the merges be listed in the order of the ids they produce, and let every token, encoded alone, be reached by
merging. Suppose that somewhere in a text two neighbours (a, b) could form the token t. So far nothing was merged across
the two ends of that stretch, hence within it the same merges were made as in t encoded alone; and there the last two
parts before t are the ones that t is merged from. So (a, b) are those parts: no pair is open to one engine that is not
open to the other, both rank the open pairs alike, and both take the same step. (The algorithm: Sennrich et al. 2016,
section 3.2.)

That both cut text into the same words first is no theorem, since each has its own engine for regular expressions: it is
tried out, on text with letters and digits of the newest versions of Unicode among others.

The special-token rule holds in both engines here, whatever the tokenizer's own settings: text never becomes a special
token, so `<|endoftext|>` found in a corpus is encoded as the ordinary bytes that it is. Added tokens that are not
special are the opposite: each is one token wherever it stands in text, so text is cut at them before tiktoken sees it.

Ground floor: imports nothing of ours but the errors. Users import from `hfgpt.tokenization`.
"""

import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, pairwise
from typing import Any, Literal

import tiktoken
from tiktoken_ext.openai_public import r50k_pat_str
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from hfgpt.errors import UserError

__all__ = [
    "GPT2_PATTERN",
    "CleanTexts",
    "NoExactEngineError",
    "TextEncoder",
    "bulk_encoding",
    "replace_lone_surrogates",
    "token_bytes",
    "unreachable_tokens",
]

logger = logging.getLogger(__name__)

GPT2_PATTERN: str = r50k_pat_str
"""How GPT-2 cuts text into words before merging: OpenAI's regular expression in tiktoken's possessive spelling."""

# A byte-level vocabulary is stored as text: each of the 256 bytes has a printable character that stands for it.
CHARACTER_OF_BYTE: dict[int, str] = bytes_to_unicode()
BYTE_OF_CHARACTER: dict[str, int] = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}

# White space that is left to `tokenizers`: tiktoken's engine for regular expressions notes every character of it, to go
# back to, and panics after a million of them, which ends the process.
LONG_WHITE_SPACE = re.compile(r"(?<!\s)\s{100000}")

SURROGATE = re.compile("[\ud800-\udfff]")
SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

# What byte-pair encoders are known to disagree on. Both engines must give the same ids on all of it.
ADVERSARIAL_TEXTS = (
    "",
    " ",
    "\n",
    "   leading, trailing   ",
    "tabs\t\tand\n\n\nnewlines\r\n \r mixed \n ",
    "It's we'll THEY'RE I'd 'twas rock'n'roll ''s '\u017f don\u2019t",  # a long s, a typographic apostrophe
    "naïve café Ångström e\u0301 ﬁ Ⅻ ² ½ ١٢٣ 3.14159 1,000,000 0x1F",
    "中文字符 日本語かなカナ 한국어 العربية עברית हिन्दी ไทย",
    "👍 \U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1fa\U0001f1f3 \u2603\ufe0f \U0001d4b3 \U0010ffff",
    "\x00\x01\x1b\x7f\x85\xa0\xad\u180e\u200b\u200d\u2028\u2029\u202e\u3000\ufeff\ufffd",
    "!!!???...---___***###$$$%%%^^^&&&((()))[[[]]]{{{}}}<<<>>>|||~~~```",
    "def f(x):\n    return {'a': [x**2, -x], \"b\": lambda y: y != x}  # comment\n",
    "<|endoftext|> <|endoftext|><|endoftext|>a<|endoftext|>",
    "a" * 200 + " " * 200 + "ab" * 100 + "\n" * 100 + "=" * 100 + "€" * 50,
    # Letters and digits new in Unicode 14 to 18, private and unassigned characters, without a space: where one engine
    # knows fewer of them than the other, it cuts elsewhere.
    "a\U00010570b\U00011f04c\U0002ebf0d\U000105c0e\U000323b0f\u0558g1\U0001e4f02\U00011bf03\U00011de04\ue000z\u0378z\uffff!",
)


class NoExactEngineError(ValueError):
    """No tiktoken engine can be shown to give the ids of this tokenizer; the message says why."""


def replace_lone_surrogates(text: str) -> tuple[str, int]:
    """`text` made encodable as UTF-8, and how many characters of it were replaced by U+FFFD.

    A Python string may hold halves of UTF-16 surrogate pairs, which are no characters and which UTF-8 cannot write. Two
    halves that belong together become the one character they mean; a half alone becomes U+FFFD and is counted.
    """
    if text.isascii() or SURROGATE.search(text) is None:
        return text, 0
    joined = SURROGATE_PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return SURROGATE.subn("\ufffd", joined)


class CleanTexts:
    """Iterates over texts with lone surrogates replaced, counting characters and replacements as it goes."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts
        self.characters = 0
        self.replaced = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            clean, replaced = replace_lone_surrogates(text)
            self.characters += len(clean)
            self.replaced += replaced
            yield clean
        if self.replaced:
            logger.warning("%d lone surrogates in the text were replaced by U+FFFD", self.replaced)


def bulk_encoding(tokenizer: PreTrainedTokenizerBase) -> tiktoken.Encoding:
    """The tiktoken engine whose `encode_ordinary` gives the ids of `tokenizer` for plain text.

    Works for byte-level BPE that cuts words as GPT-2 does or by one regular expression of its own, with any special
    tokens. The conditions of the module's docstring are checked on the vocabulary; then both engines are compared on
    adversarial text. `TextEncoder` adds what an encoding alone cannot do: added tokens that are looked for in text, and
    white space without end.

    Raises:
        NoExactEngineError: the tokenizer is of another kind, or a condition fails.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise NoExactEngineError("it is no fast tokenizer")
    backend = _ordinary_backend(tokenizer.backend_tokenizer.to_str())
    for token in json.loads(backend.to_str())["added_tokens"]:
        if not token["special"]:
            raise NoExactEngineError(f"its added token {token['content']!r} is looked for in plain text")
    return _exact_encoding(backend)


class TextEncoder:
    """Plain text to token ids in bulk, on several threads; no special token is read from text, and none is added.

    Runs tiktoken where an exact engine is found (see `bulk_encoding`), else `tokenizers`, which a warning then says. A
    text with 100,000 or more white-space characters in one stretch is encoded by `tokenizers` in any case.

    Encoders can be pickled, and encoders of equal tokenizers give equal pickles: `datasets.map` may send one to its
    worker processes, and knows by its fingerprint what it has encoded before.

    Args:
        tokenizer: any fast tokenizer; it is read, neither kept nor changed.

    Raises:
        UserError: `tokenizer` is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise UserError(f"{type(tokenizer).__name__} is no fast tokenizer: give one that has a tokenizer.json")
        reason = self._open(tokenizer.backend_tokenizer.to_str())
        if reason is not None:
            warnings.warn(f"text is encoded by the slower engine, `tokenizers`: {reason}", stacklevel=2)

    def _open(self, description: str) -> NoExactEngineError | None:
        """Build the engines from the content of tokenizer.json; the reason why tiktoken is not one of them, if so."""
        self._backend = _ordinary_backend(description)
        self._encoding: tiktoken.Encoding | None = None
        try:
            self._added_tokens = _AddedTokens(json.loads(description)["added_tokens"])
            self._encoding = _exact_encoding(self._backend)
        except NoExactEngineError as reason:
            return reason
        return None

    @property
    def engine(self) -> Literal["tiktoken", "tokenizers"]:
        """The name of the library that encodes."""
        return "tokenizers" if self._encoding is None else "tiktoken"

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text. Lone surrogates become U+FFFD, and their number is logged."""
        if isinstance(texts, str):
            raise TypeError("give a list of texts, such as [text], not one string")
        clean = list(CleanTexts(texts))
        if self._encoding is None:
            return [encoded.ids for encoded in self._backend.encode_batch_fast(clean, add_special_tokens=False)]
        return _map_in_threads(partial(self._encode_exactly, self._encoding), clean)

    def _encode_exactly(self, encoding: tiktoken.Encoding, text: str) -> list[int]:
        if LONG_WHITE_SPACE.search(text):
            return self._backend.encode(text, add_special_tokens=False).ids
        ids: list[int] = []
        for stretch in self._added_tokens.cut(text):
            ids += [stretch] if isinstance(stretch, int) else encoding.encode_ordinary(stretch)
        return ids

    def __getstate__(self) -> dict[str, str]:
        return {"description": self._backend.to_str()}

    def __setstate__(self, state: dict[str, str]) -> None:
        self._open(state["description"])


class _AddedTokens:
    """The added tokens that text becomes, cut out of it as `tokenizers` does: leftmost first, and the longest there.

    Special tokens are looked for beside them and passed over as text, with what lies in them: the "text" in
    `<|endoftext|>` stays a part of those thirteen characters even where "text" is an added token. Those to be found in
    text as it is come before those to be found in normalised text, though nothing is normalised here.

    Args:
        added_tokens: the entries in tokenizer.json.

    Raises:
        NoExactEngineError: a token also takes the white space around it, or is looked for as a whole word only.
    """

    def __init__(self, added_tokens: list[dict[str, Any]]) -> None:
        self.ids = {token["content"]: token["id"] for token in added_tokens if not token["special"]}
        for token in added_tokens:
            if token["content"] in self.ids and (token["lstrip"] or token["rstrip"] or token["single_word"]):
                raise NoExactEngineError(f"its added token {token['content']!r} looks at the text around it")
        self.patterns = []
        for normalized in (False, True):
            contents = [token["content"] for token in added_tokens if token["normalized"] is normalized]
            if not self.ids.keys().isdisjoint(contents):
                self.patterns.append(_longest_of(contents))

    def cut(self, text: str) -> list[str | int]:
        """The stretches of ordinary text, and the ids of the tokens between them, in their order."""
        stretches: list[str | int] = [text]
        for pattern in self.patterns:
            parts = ([part] if isinstance(part, int) else self._cut_once(pattern, part) for part in stretches)
            stretches = list(chain.from_iterable(parts))
        return stretches

    def _cut_once(self, pattern: re.Pattern[str], text: str) -> Iterator[str | int]:
        start = 0
        for match in pattern.finditer(text):
            if match[0] in self.ids:
                yield text[start : match.start()]
                yield self.ids[match[0]]
                start = match.end()
        yield text[start:]


def _longest_of(strings: list[str]) -> re.Pattern[str]:
    """Matches the longest of `strings` at a place. They are grouped by their first character, for speed with many."""
    tails: dict[str, list[str]] = {}
    for string in sorted(strings, key=len, reverse=True):
        tails.setdefault(string[0], []).append(re.escape(string[1:]))
    return re.compile("|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in tails.items()))


def token_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for. KeyError: a character stands for no byte."""
    return bytes(BYTE_OF_CHARACTER[character] for character in token)


def unreachable_tokens(backend: Tokenizer, ranks: dict[bytes, int]) -> list[int]:
    """The ids of those tokens whose own bytes are not merged into them by the BPE model of `backend`, ascending."""
    model = backend.model
    looks_up_words = model.ignore_merges
    model.ignore_merges = False
    unreachable = []
    for token, id in ranks.items():
        parts = model.tokenize("".join(CHARACTER_OF_BYTE[byte] for byte in token))
        if [part.id for part in parts] != [id]:
            unreachable.append(id)
    model.ignore_merges = looks_up_words
    return sorted(unreachable)


def _map_in_threads(encode: Callable[[str], list[int]], texts: list[str]) -> list[list[int]]:
    """`encode` of each text, with one slice of the texts for each thread; tiktoken lets go of Python's lock.

    tiktoken's `encode_ordinary_batch` queues each text by itself, which takes longer than the encoding where texts are
    short (6 times as long as this at 100 characters); on long ones there is no difference.
    """
    threads = min(len(texts), os.cpu_count() or 1)
    if threads <= 1:
        return [encode(text) for text in texts]
    edges = [len(texts) * thread // threads for thread in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        slices = [texts[start:end] for start, end in pairwise(edges)]
        encoded = pool.map(lambda part: [encode(text) for text in part], slices)
        return [ids for part in encoded for ids in part]


def _exact_encoding(backend: Tokenizer) -> tiktoken.Encoding:
    """The tiktoken engine for the text between the added tokens of `backend`, which reads all text as ordinary.

    Raises:
        NoExactEngineError: a condition fails.
    """
    description = json.loads(backend.to_str())
    pattern = _pattern(description)
    ranks = _mergeable_ranks(backend, description)
    special_tokens = {token["content"]: token["id"] for token in description["added_tokens"] if token["special"]}
    try:
        encoding = tiktoken.Encoding("bulk", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_tokens)
    except ValueError as error:
        raise NoExactEngineError(f"tiktoken cannot read its regular expression ({error})") from error
    words_of_texts = _words_of_adversarial_texts(backend, pattern)
    for text, words in zip(ADVERSARIAL_TEXTS, words_of_texts, strict=True):
        if encoding.encode_ordinary(text) != [part.id for word in words for part in backend.model.tokenize(word)]:
            raise NoExactEngineError(f"the two engines disagree on {text[:40]!r}")
    return encoding


def _words_of_adversarial_texts(backend: Tokenizer, pattern: str) -> list[list[str]]:
    """The words, in the vocabulary's spelling, into which both engines cut each text.

    With the words of one engine as the vocabulary of the other, a word that both cut is one token, and a word that only
    one of them cuts falls into several: so a difference shows whatever the vocabulary at hand would make of it.

    Raises:
        NoExactEngineError: they cut differently.
    """
    pre_tokenizer = backend.pre_tokenizer
    assert pre_tokenizer is not None  # `_pattern` read it
    words_of_texts = [[word for word, _ in pre_tokenizer.pre_tokenize_str(text)] for text in ADVERSARIAL_TEXTS]
    ranks = {bytes([byte]): byte for byte in range(256)}
    for word in chain.from_iterable(words_of_texts):
        ranks.setdefault(token_bytes(word), len(ranks))
    cutter = tiktoken.Encoding("words", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text, words in zip(ADVERSARIAL_TEXTS, words_of_texts, strict=True):
        if cutter.encode_ordinary(text) != [ranks[token_bytes(word)] for word in words]:
            raise NoExactEngineError(f"the two engines cut {text[:40]!r} into other words")
    return words_of_texts


def _ordinary_backend(description: str) -> Tokenizer:
    """A private `tokenizers` engine that reads all text as ordinary text, without truncation or padding."""
    backend = Tokenizer.from_str(description)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # "encode them as the text they are"; tokenizer.json does not hold this
    return backend


def _pattern(description: dict[str, Any]) -> str:
    """The one regular expression by which a byte-level tokenizer cuts text into words."""
    if description["normalizer"] is not None:
        raise NoExactEngineError(f"it changes text before encoding it (normalizer {description['normalizer']['type']})")
    match description["pre_tokenizer"]:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2_PATTERN
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    raise NoExactEngineError("its pre-tokenizer is not byte-level with one regular expression")


def _mergeable_ranks(backend: Tokenizer, description: dict[str, Any]) -> dict[bytes, int]:
    """The table of tiktoken, {bytes of a token: id}, of a BPE model whose ids and merges are shown to say the same."""
    model = description["model"]
    extras = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model["type"] != "BPE" or any(model.get(extra) for extra in extras):
        raise NoExactEngineError("it is not plain byte-pair encoding")
    vocabulary: dict[str, int] = model["vocab"]
    if not BYTE_OF_CHARACTER.keys() <= vocabulary.keys():
        raise NoExactEngineError("its vocabulary lacks some of the 256 bytes")
    products = ["".join(merge) for merge in model["merges"]]
    if any(vocabulary[earlier] > vocabulary[later] for earlier, later in pairwise(products)):
        raise NoExactEngineError("its ids are not in the order of its merges")
    if model["ignore_merges"]:  # whole words are looked up before merging, so every ordinary token can be used
        used = vocabulary.keys() - {token["content"] for token in description["added_tokens"]}
    else:
        used = BYTE_OF_CHARACTER.keys() | set(products)
    try:
        ranks = {token_bytes(token): vocabulary[token] for token in used}
    except KeyError as error:
        raise NoExactEngineError("its vocabulary is not byte-level") from error
    if unreachable := unreachable_tokens(backend, ranks):
        raise NoExactEngineError(f"{len(unreachable):,} of its tokens are not reached by merging")
    return ranks
