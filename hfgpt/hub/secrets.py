"""Nothing private leaves: what would be pushed is searched for keys and tokens, and for what names this machine.

Tokens and keys are found by the detectors of detect-secrets that know a form of their own. Its two detectors of high
entropy are not among them: hashes, merges of a vocabulary and learned numbers all look random.
"""

import json
import os
import platform
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath

from detect_secrets.filters import heuristic
from detect_secrets.plugins import (
    artifactory,
    aws,
    azure_storage_key,
    basic_auth,
    discord,
    github_token,
    gitlab_token,
    jwt,
    mailchimp,
    npm,
    openai,
    private_key,
    pypi_token,
    sendgrid,
    slack,
    square_oauth,
    stripe,
    telegram_token,
    twilio,
)
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.keyword import CONFIG_DENYLIST_REGEX_TO_GROUP, KeywordDetector
from huggingface_hub import get_token
from PIL import Image

from hfgpt.errors import UserError

from .allow_list import PushedFile

__all__ = ["Finding", "Machine", "find_private", "refuse_private"]


class RecentFormsDetector(RegexBasedDetector):
    """Forms of keys that are younger than detect-secrets: GitHub's, OpenAI's, Anthropic's, Google's, Databricks'."""

    secret_type = "API key"  # noqa: S105  # its kind, not itself
    denylist = (
        re.compile(
            r"(?<![A-Za-z0-9_-])(?:github_pat_\w{60,}|sk-(?:proj|svcacct|admin|ant)-[\w-]{40,}|AIza[\w-]{35}"
            r"|dapi[0-9a-f]{32}|r8_[A-Za-z0-9]{37})(?![A-Za-z0-9])"
        ),
        re.compile(r"\bBearer\s+([\w.~+/-]{24,}=*)"),
    )


class HuggingFaceTokenDetector(RegexBasedDetector):
    """The tokens of the Hub itself, of users and of organisations, which detect-secrets does not know."""

    secret_type = "Hugging Face token"  # noqa: S105  # its kind, not itself
    denylist = (re.compile(r"(?<![A-Za-z0-9_])(?:hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,})"),)


DETECTORS = (
    HuggingFaceTokenDetector,
    RecentFormsDetector,
    artifactory.ArtifactoryDetector,
    aws.AWSKeyDetector,
    azure_storage_key.AzureStorageKeyDetector,
    basic_auth.BasicAuthDetector,
    discord.DiscordBotTokenDetector,
    github_token.GitHubTokenDetector,
    gitlab_token.GitLabTokenDetector,
    jwt.JwtTokenDetector,
    mailchimp.MailchimpDetector,
    npm.NpmDetector,
    openai.OpenAIDetector,
    private_key.PrivateKeyDetector,
    pypi_token.PypiTokenDetector,
    sendgrid.SendGridDetector,
    slack.SlackDetector,
    square_oauth.SquareOAuthDetector,
    stripe.StripeDetector,
    telegram_token.TelegramBotTokenDetector,
    twilio.TwilioKeyDetector,
)

# Pieces of words, any of which may be that of a user or a machine; and code, in which a name is a word like others.
WITHOUT_NAMES = ("tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe")

# Words of many a card: they tell nobody anything, and would stop every push from a machine or an account of that name.
_COMMON = """
    root user users admin administrator ubuntu debian fedora centos linux runner docker container jovyan colab kaggle
    notebook vagrant localhost localdomain local server computer machine laptop desktop node host home test build data
    train training model models work worker main default python
"""
COMMON_NAMES = frozenset(_COMMON.split())

# Folders that every machine of a kind has.
SYSTEM_FOLDERS = frozenset(["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr"])

# Where an absolute path begins: no slash of a URL, of "and/or" or of a path that began before.
_BEGINS = r"(?:(?<![\w./~<\\-])|(?<=file://))"
_HOME = re.compile(_BEGINS + r"/(?:home|Users)/[\w.-]+|(?<!\w)[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[\w.-]+")
_ABSOLUTE = re.compile(_BEGINS + r"/([\w.+@-]+)/[\w.+@-]|(?<!\w)[A-Za-z]:\\{1,2}[\w.-]+\\")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[nrtbf/\"'\\])")
_SECRET_VARIABLE = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|KEY|CREDENTIALS?)$")


@dataclass(frozen=True)
class Machine:
    """What would tell whose machine, account and folders a file comes from."""

    home: str = ""
    user: str = ""
    host: str = ""
    top_folders: frozenset[str] = frozenset()
    """Names of the folders in `/`."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Secrets that are in use here, each by its text."""

    @classmethod
    def here(cls) -> "Machine":
        """This one."""
        home = Path.home()
        found = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name.upper())}
        found |= {get_token() or ""}
        return cls(
            home=str(home),
            user=os.environ.get("USER") or os.environ.get("USERNAME") or home.name,
            host=platform.node(),
            top_folders=frozenset(path.name for path in Path("/").iterdir() if path.is_dir()),
            # A short value is a switch, and one with a slash a path or a name.
            secrets=tuple(sorted(value for value in found if len(value) >= 12 and "/" not in value)),
        )

    def names(self, repo_id: str) -> dict[str, str]:
        """Names to look for, with what each is of; not that under which the model is published anyway."""
        names = {self.user: "the name of this account", self.host: "the name of this machine"}
        names |= {self.host.partition(".")[0]: "the name of this machine"}
        public = {*repo_id.split("/"), *COMMON_NAMES}
        return {name: what for name, what in names.items() if len(name) >= 4 and name.lower() not in public}


@dataclass(frozen=True)
class Finding:
    """Something private: where it stands and of what kind it is; never the thing itself."""

    path: str
    what: str
    line: int | None = None
    """Counted from 1; None in a binary file."""

    def __str__(self) -> str:
        return f"{self.what} in {self.path}" + ("" if self.line is None else f", line {self.line}")


def refuse_private(files: Sequence[PushedFile], repo_id: str, machine: Machine | None = None) -> None:
    """Stop where something private would be sent.

    Args:
        repo_id: Where to; its own words are public.
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
    return [finding for file in files for finding in _find_in(file, repo_id, machine)]


def _find_in(file: PushedFile, repo_id: str, machine: Machine) -> Iterator[Finding]:
    if file.path.endswith(".safetensors"):
        yield from _without_line(file.path, "its metadata", _safetensors_header(file), repo_id, machine)
    elif file.path.endswith(".png"):
        yield from _without_line(file.path, "its comments", _png_comments(file), repo_id, machine)
    else:
        try:
            text = file.read().decode("utf-8")
        except UnicodeDecodeError:
            yield Finding(file.path, "text that is not UTF-8 and cannot be searched")
            return
        for number, line in enumerate(text.split("\n"), start=1):
            for what in _find_in_line(file.path, line, repo_id, machine):
                yield Finding(file.path, what, number)


def _without_line(path: str, part: str, text: str, repo_id: str, machine: Machine) -> Iterator[Finding]:
    for what in dict.fromkeys(
        what for line in text.split("\n") for what in _find_in_line(path, line, repo_id, machine)
    ):
        yield Finding(path, f"{what} ({part})")


def _find_in_line(path: str, line: str, repo_id: str, machine: Machine) -> list[str]:
    """What kinds of private things stand in a line, also behind the escapes of JSON, YAML and Python."""
    read = _ESCAPE.sub(_unescaped, line)
    lines = [line] if read == line else [line, *read.split("\n")]
    return list(dict.fromkeys(what for text in lines for what in _find_in_text(path, text, repo_id, machine)))


def _unescaped(escape: re.Match[str]) -> str:
    """The character that an escape stands for; one that only sets words apart is a new line."""
    written = escape[1]
    return chr(int(written[1:], 16)) if written[0] in "ux" else written if written in "/\"'\\" else "\n"


def _find_in_text(path: str, line: str, repo_id: str, machine: Machine) -> list[str]:
    found = [
        detector.secret_type for detector in _detectors() if any(_is_secret(s) for s in detector.analyze_string(line))
    ]
    if any(secret in line for secret in machine.secrets):
        found.append("a token or password that is in use here")
    if not found and _has_password(path, line):
        found.append("a password or key")
    if _names_folder(line, machine):
        found.append("a home folder or an absolute path of this machine")
    if PurePosixPath(path).name not in WITHOUT_NAMES and not path.endswith(".py"):
        text = line.replace(repo_id, " ")
        found += [what for name, what in machine.names(repo_id).items() if _is_word(name, text)]
    return [_described(what) for what in dict.fromkeys(found)]


def _described(what: str) -> str:
    """With an article."""
    return what if what.startswith(("a ", "the ")) else f"{'an' if what[0] in 'AEIO' else 'a'} {what}"


@cache
def _detectors() -> tuple[RegexBasedDetector, ...]:
    return tuple(detector() for detector in DETECTORS)


def _is_secret(found: str) -> bool:
    """Not an example in a manual, such as `<token>` or `${TOKEN}`."""
    return not (heuristic.is_templated_secret(found) or heuristic.is_prefixed_with_dollar_sign(found))


def _has_password(path: str, line: str) -> bool:
    """Whether a value is assigned to a name that sounds secret: in quotes, or in YAML without."""
    groups = CONFIG_DENYLIST_REGEX_TO_GROUP if path.endswith((".yaml", ".yml")) else None
    for found in KeywordDetector().analyze_string(line, groups):
        value = found.strip()
        nothing = value.lower() in ("", "null", "none", "true", "false", "~") or heuristic.is_not_alphanumeric_string(
            value
        )
        if not nothing and _is_secret(value) and not heuristic.is_indirect_reference(line):
            return True
    return False


def _names_folder(line: str, machine: Machine) -> bool:
    if _HOME.search(line):
        return True
    if len(machine.home) > 1 and re.search(_BEGINS + re.escape(machine.home) + r"(?![\w-])", line):
        return True
    for found in _ABSOLUTE.finditer(line):
        top = found[1]
        if top is None or (top in machine.top_folders and top not in SYSTEM_FOLDERS):
            return True
    return False


def _is_word(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text, re.IGNORECASE) is not None


def _safetensors_header(file: PushedFile) -> str:
    """What a file of weights says beside the numbers: names, shapes and free text, one item a line."""
    with file.source.open("rb") as opened:
        prefix = opened.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 0 < length <= 100_000_000:  # the format's own limit
            raise UserError(f"{file.source} is not a whole safetensors file: save the model again.")
        header = opened.read(length)
    try:
        return json.dumps(json.loads(header), indent=0, ensure_ascii=False)
    except ValueError as error:
        raise UserError(f"{file.source} is not a whole safetensors file: save the model again.") from error


def _png_comments(file: PushedFile) -> str:
    """The texts that a picture carries, such as its author, title and the program that drew it."""
    try:
        with Image.open(file.source, formats=["PNG"]) as picture:
            picture.load()  # texts may stand after the pixels
            texts = [(str(name), value) for name, value in picture.info.items()]
            texts += [(f"EXIF {tag}", value) for tag, value in picture.getexif().items()]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file.source} is not a whole picture: draw it anew or remove it.") from error
    texts = [(name, value.decode("latin-1") if isinstance(value, bytes) else value) for name, value in texts]
    return "\n".join(f"{name}: {value}" for name, value in texts if isinstance(value, str))
