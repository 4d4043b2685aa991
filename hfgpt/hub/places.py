"""What tells whose machine, account and folders a text comes from, of this machine and of others."""

import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import get_token

from .key_forms import words_like_keys

__all__ = ["Machine", "names_address", "names_folder"]

# Words of many a card and path: they tell nobody anything, and would stop pushes from an account of that name, or from
# a machine that is called after its GPU.
_COMMON = """
    root user users admin administrator ubuntu debian fedora centos linux runner docker container jovyan colab kaggle
    notebook vagrant localhost localdomain local server computer machine laptop desktop node host home test build data
    train training model models work worker main default python demo run runs final checkpoint recipes configs hfgpt
    datasets docs blob tree resolve gpt2 a100 b200 gh200 h100 h200 l40s v100
"""
COMMON_NAMES = frozenset(_COMMON.split())

# Folders that every machine of a kind has.
SYSTEM_FOLDERS = frozenset(["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "sys", "usr"])

# Folders in `/` below which people and clusters keep things, whether this machine has them or not.
KEEPING = (
    "home|Users|users|root|tmp|var|opt|scratch|gpfs|lustre|beegfs|ceph|cephfs|nfs|afs|efs|fsx|weka|vast|nas|san"
    "|net|mnt|media|Volumes|data|datasets|storage|store|disk|disks|ssd|hdd|nvme|raid|pool|work|workspace"
    "|workspaces|project|projects|proj|group|groups|share|shared|shares|srv|export|private|people|cluster|hpc"
    "|dbfs|cfs|content|kaggle"
)

# Where an absolute path begins: no slash of a URL, of "and/or", of "</p>" or of a path that began before; it may follow
# -I or -L.
_BEGINS = r"(?:(?<![^\W_])(?<![./~<\\-])(?:-[A-Za-z])?|file://[\w.-]*)"
_HOME = re.compile(
    rf"(?:{_BEGINS}|(?<!\w)<|(?<![\w./])\.\.(?:/\.\.)*)(?:/[\w.+@-]+)*/(?:home|Users)/[\w.-]+"
    r"|(?<![\w./~])~[A-Za-z][\w.-]*/\w"
)
_ABSOLUTE = re.compile(_BEGINS + r"/([\w.+@-]+)/[\w.+@~-]")
_KEEPING = re.compile(rf"(?:{KEEPING})\d*")
_ELSEWHERE = re.compile(
    r"(?<!\w)[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[\w.-]+"
    r"|(?<!\w)[A-Za-z]:(?:\\{1,2}[\w.$ -]+\\|/[\w.$ -]+/)\w"  # a drive of Windows
    r"|(?<![\\\w])\\\\[\w$.-]{2,}\\[\w$.-]{2,}"  # a share
    r"|\b(?:sftp|smb|cifs|nfs|afp|rsync|hdfs|vscode-remote)://\w"
    r"|(?<![\w.])[\w.-]+@[\w.-]+:[~/]"  # another machine, as scp writes it
)
_PRIVATE_ADDRESS = re.compile(
    r"(?<![\w.])(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}(?!\w|\.\d)"
)
_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PAT|(?:API)?KEY|CREDENTIAL)S?(?:_?\d)?$"
)

# Where programs keep keys, in the home folder.
KEY_FILES = (
    ".netrc",
    ".git-credentials",
    ".aws/credentials",
    ".kaggle/kaggle.json",
    ".config/kaggle/kaggle.json",
)


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
        found = {get_token() or ""}
        for name, value in os.environ.items():
            if _SECRET_VARIABLE.search(name.upper()):
                found |= {line for line in value.splitlines() if not _is_name(line)}
        for name in KEY_FILES:
            if os.access(home / name, os.R_OK) and (home / name).is_file():
                found |= set(words_like_keys((home / name).read_text(encoding="utf-8", errors="replace")))
        return cls(
            home=str(home),
            user=os.environ.get("USER") or os.environ.get("USERNAME") or home.name,
            host=platform.node(),
            top_folders=frozenset(path.name for path in Path("/").iterdir() if path.is_dir()),
            secrets=tuple(sorted(value for value in found if len(value) >= 12)),  # a shorter one is a switch
        )

    def named_in(self, text: str, repo_ids: Sequence[str]) -> Iterator[str]:
        """What of this machine a text names; not that under which this model, or one before it, is published anyway.

        A name of letters only may be any word, and counts where one stands for an account or a machine.
        """
        public = {*"/".join(repo_ids).lower().split("/"), *COMMON_NAMES}
        for repo_id in repo_ids:
            text = text.replace(repo_id, " ")
        names = {self.user: "account", self.host: "machine", self.host.partition(".")[0]: "machine"}
        for name, whose in names.items():
            if len(name) < 3 or name.lower() in public or name.lower() not in text.lower():
                continue
            where = _place_of(name, text)
            if where is not None:
                yield f"the name of this {whose}{where}"


def _is_name(value: str) -> bool:
    """Whether a value is a path or the name of something and no secret."""
    if "/" not in value:
        return False
    mixed = all(re.search(kind, value) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    exists = os.path.exists(value)  # noqa: PTH110  # Path stumbles over long ones
    return not mixed or " " in value or "://" in value or exists


def _place_of(name: str, text: str) -> str | None:
    """Where a name stands as that of an account or a machine; anywhere, if it cannot be a word like others."""
    if not name.isalpha() and len(name) > 3:
        return "" if re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text, re.IGNORECASE) else None
    word = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
    places = {
        " in an address": rf"{word}@|\w@{word}|//{word}(?=[:/])|{word}\.(?:local|lan|home|internal|corp|intranet)\b",
        " in a field": rf"\b(?:user|user_?name|login|account|host|host_?name|node|machine|entity)"
        rf"[\"']?\s*[:=]\s*[\"']?{word}",
        " in a path": rf"(?<![\w/])~{word}",
    }
    for place, pattern in places.items():
        if re.search(pattern, text, re.IGNORECASE):
            return place
    # "church/state" is no path: that has more parts, or begins with a slash.
    paths = re.findall(r"[^\s\"'`<>()\[\]{},;=\\]*(?:/[^\s\"'`<>()\[\]{},;=\\/]*){2,}", text)
    return " in a path" if name.lower() in {part.lower() for path in paths for part in path.split("/")} else None


def names_folder(line: str, machine: Machine) -> bool:
    """Whether a line holds an absolute path below which people keep things, here or elsewhere."""
    if _HOME.search(line) or _ELSEWHERE.search(line):
        return True
    if len(machine.home) > 1 and re.search(_BEGINS + re.escape(machine.home) + r"(?![\w-])", line):
        return True
    tops = {found[1] for found in _ABSOLUTE.finditer(line)}
    return any(top in machine.top_folders - SYSTEM_FOLDERS or _KEEPING.fullmatch(top) for top in tops)


def names_address(line: str) -> bool:
    """Whether a line holds an address within a private network."""
    return _PRIVATE_ADDRESS.search(line) is not None
