"""Nothing private leaves: what would be pushed is searched for keys and tokens, and for what names a machine."""

import html
import json
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from PIL import Image
from safetensors import SafetensorError, safe_open

from hfgpt.errors import UserError

from .allow_list import PushedFile
from .facts_file import CARD_FACTS, parse_facts
from .key_forms import has_password, is_password_in_yaml, kinds_of_keys
from .places import Machine, names_address, names_folder
from .repositories import is_repository_id

__all__ = ["Finding", "find_private", "refuse_private"]

# Pieces of words, any of which may be that of a user or a machine; and code, in which a name is a word like others.
WITHOUT_NAMES = ("tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe")

# What of a picture is no text.
PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"pHYs", b"gAMA", b"tRNS", b"bKGD", b"sRGB", b"cHRM", b"sBIT", b"tIME")

_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[nrtbf/\"'\\])")


@dataclass(frozen=True)
class Finding:
    """Something private: where it stands and of what kind it is; never the thing itself."""

    path: str
    what: str
    line: int | None = None
    """Counted from 1; None in a binary file."""
    made_of: str | None = None
    """The file here that its text was made of, where that has another name."""

    def __str__(self) -> str:
        source = "" if self.made_of is None else f" (made of {self.made_of})"
        return f"{self.what} in {self.path}" + ("" if self.line is None else f", line {self.line}") + source


def refuse_private(files: Sequence[PushedFile], repo_id: str, machine: Machine | None = None) -> None:
    """Stop where something private would be sent.

    Args:
        repo_id: Where to; its own words are public, as are those of the repositories that the model was made from.
        machine: Default: this one.

    Raises:
        UserError: One sentence that names kinds, files and lines, and not what is found there.
    """
    found = find_private(files, repo_id, machine)
    if found:
        shown = "; ".join(str(finding) for finding in found[:5])
        more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
        raise UserError(f"Nothing is pushed, for there is {shown}{more}: take it out of the file, or the file away.")


def find_private(files: Sequence[PushedFile], repo_id: str, machine: Machine | None = None) -> list[Finding]:
    """What is private in the files, in their order."""
    machine = Machine.here() if machine is None else machine
    facts = [parse_facts(file.read().decode(errors="replace")) for file in files if file.path == CARD_FACTS]
    public = (repo_id, *_repositories(facts))
    return [finding for file in files for finding in _find_in(file, public, machine)]


def _repositories(facts: Any) -> Iterator[str]:
    """Ids of the repositories on the Hub that facts name: of data and of ancestors, often under the same account."""
    if isinstance(facts, list):
        for item in facts:
            yield from _repositories(item)
    elif isinstance(facts, dict):
        for name, item in facts.items():
            if name == "repository" and isinstance(item, dict) and is_repository_id(str(item.get("id"))):
                yield item["id"]
            else:
                yield from _repositories(item)


def _find_in(file: PushedFile, public: Sequence[str], machine: Machine) -> Iterator[Finding]:
    if file.path.endswith(".safetensors"):
        yield from _without_line(file.path, "its metadata", _safetensors_header(file), public, machine)
    elif file.path.endswith(".png"):
        text, tail = _beside_pixels(file)
        yield from _without_line(file.path, "its comments", text, public, machine)
        if tail:
            yield Finding(file.path, "something after the end of the picture")
    else:
        made_of = None if file.source.name == file.path else file.source.name
        try:
            text = file.read().decode("utf-8")
        except UnicodeDecodeError:
            yield Finding(file.path, "text that is not UTF-8 and cannot be searched")
            return
        for number, line in enumerate(text.split("\n"), start=1):
            for what in _find_in_line(file.path, line, public, machine):
                yield Finding(file.path, what, number, made_of)


def _without_line(path: str, part: str, text: str, public: Sequence[str], machine: Machine) -> Iterator[Finding]:
    for what in dict.fromkeys(what for line in text.split("\n") for what in _find_in_line(path, line, public, machine)):
        yield Finding(path, f"{what} ({part})")


def _find_in_line(path: str, line: str, public: Sequence[str], machine: Machine) -> list[str]:
    """What kinds of private things stand in a line, also behind the escapes of JSON, YAML, Python, URLs and HTML."""
    lines = [line]
    # An escape within an escape: a template of Jinja is Python's text within one of JSON.
    while (read := _ESCAPE.sub(_unescaped, lines[-1])) != lines[-1] and len(lines) < 4:
        lines.append(read)
    lines += [unquote(line), html.unescape(line)]
    texts = dict.fromkeys(text for read in lines for text in read.split("\n"))
    found = [what for text in texts for what in _find_in_text(path, text, public, machine)]
    if not found and path.endswith((".yaml", ".yml")) and is_password_in_yaml(line):
        found.append("a password or key")
    return list(dict.fromkeys(found))


def _unescaped(escape: re.Match[str]) -> str:
    """The character that an escape stands for; one that only sets words apart is a new line."""
    written = escape[1]
    return chr(int(written[1:], 16)) if written[0] in "ux" else written if written in "/\"'\\" else "\n"


def _find_in_text(path: str, line: str, public: Sequence[str], machine: Machine) -> list[str]:
    found = kinds_of_keys(line)
    if any(secret in line for secret in machine.secrets):
        found.append("a token or password that is in use here")
    if not found and has_password(line):
        found.append("a password or key")
    if names_folder(line, machine):
        found.append("a home folder or an absolute path of a machine")
    if names_address(line):
        found.append("an address within a private network")
    if PurePosixPath(path).name not in WITHOUT_NAMES and not path.endswith(".py"):
        found += machine.named_in(line, public)
    return [_described(what) for what in dict.fromkeys(found)]


def _described(what: str) -> str:
    """With an article."""
    return what if what.startswith(("a ", "an ", "the ")) else f"{'an' if what[0] in 'AEIOa' else 'a'} {what}"


def _safetensors_header(file: PushedFile) -> str:
    """What a file of weights says beside the numbers: names, shapes and free text, one item a line."""
    try:
        with safe_open(file.source, framework="pt"):  # it has no room for anything but a header and numbers
            pass
        with file.source.open("rb") as opened:
            header = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{file.source} is not a whole safetensors file ({error}): save the model again.") from error
    return json.dumps(header, indent=0, ensure_ascii=False)


def _beside_pixels(file: PushedFile) -> tuple[str, bool]:
    """The texts that a picture carries, such as its author and the program that drew it; and whether more follows."""
    try:
        with Image.open(file.source, formats=["PNG"]) as picture:
            picture.load()  # texts may stand after the pixels
            texts = [(str(name), value) for name, value in picture.info.items()]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file.source} is not a whole picture: draw it anew or remove it.") from error
    data, start, kind = file.source.read_bytes(), 8, b""
    while start + 12 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        if kind not in PIXELS:
            texts.append((kind.decode("latin-1"), data[start + 8 : start + 8 + length]))
        start += 12 + length
    texts = [(name, value.decode("latin-1") if isinstance(value, bytes) else value) for name, value in texts]
    # Zeros set the parts of a text apart, or are half of a letter in UTF-16.
    lines = [f"{name}: {value}" for name, value in texts if isinstance(value, str)]
    lines += [line.replace("\0", "") for line in lines if "\0" in line]
    return "\n".join(lines), start < len(data)
