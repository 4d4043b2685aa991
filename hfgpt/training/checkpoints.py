"""Checkpoints that are whole or are not there.

It knows of files only, not of what they hold:

    output_dir/
        checkpoint-300/                whole: what the run wrote, and manifest.json with each file's size and SHA-256
        .checkpoint-400.unfinished/    being written
        .checkpoint-300.replaced/      the older of two checkpoints of one step, for the moment between two renames
        .checkpoint-100.deleting/      no longer needed, and perhaps half deleted
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfgpt.errors import UserError

from .disk import lack_of_space

__all__ = ["MANIFEST", "CheckpointStore", "verify"]

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_FORMAT_VERSION = 1
_WHOLE = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
_REPLACED = re.compile(r"\.checkpoint-(0|[1-9][0-9]*)\.replaced")
_TEMPORARY = re.compile(r"\.checkpoint-(0|[1-9][0-9]*)\.(unfinished|replaced|deleting)")


class CheckpointStore:
    """The checkpoints of one run: written whole, found again, and rotated.

    Only one process may write to a folder at a time: hold `exclusive(folder)`. Anybody may read.

    Args:
        folder: The run's `output_dir`, in which each checkpoint is a folder `checkpoint-<step>`.
        keep_last: The newest so many checkpoints stay; at least 1.
        keep_best: So many with the lowest loss stay, too; a checkpoint can be among both.

    Raises:
        UserError: If a number is too small.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2, keep_best: int = 1) -> None:
        if keep_last < 1:
            raise UserError(f"keep_last must be at least 1, but is {keep_last}.")
        if keep_best < 0:
            raise UserError(f"keep_best must not be negative, but is {keep_best}.")
        self.folder, self.keep_last, self.keep_best = Path(folder), keep_last, keep_best

    def write(self, step: int, fill: Callable[[Path], None], *, loss: float | None = None) -> Path:
        """Write the checkpoint of a step; when this returns it is whole and on the disk, and older ones are rotated.

        `fill` writes the files into a hidden folder. Each file and folder is flushed, the manifest last, and only then
        is the folder renamed: a process that is killed, or a machine that loses its power, leaves a whole checkpoint
        or none. Older ones are deleted after that, and get a hidden name first, so that none looks whole when half of
        it is gone.

        If `checkpoint-<step>` is there already, because a resumed run reaches the step again, or is damaged, the new
        one takes its place. POSIX has no exchange of two folders, so there are two renames, the old one out and the
        new one in. Between them both are complete under hidden names: `newest` knows the old one's, and after a kill
        in between `clean` puts it back.

        Args:
            step: The optimizer steps taken so far.
            fill: Writes the files into the folder it is given. Let it hand open files, not paths, to `torch.save`:
                of a path, torch does not say why it could not be written.
            loss: What `keep_best` compares, the lowest being the best; a loss that is not finite counts as none.

        Returns:
            The folder `checkpoint-<step>`.

        Raises:
            UserError: If the disk is full, or a quota or a limit on file sizes reached. As after every failure, what
                was written is removed and the older checkpoints stay.
        """
        unfinished = self._temporary(step, "unfinished")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._recover(step)
            unfinished.mkdir()
            fill(unfinished)
            _seal(unfinished, step, loss)
            self._put_in_place(step, unfinished)
        except BaseException as error:
            reason = self._lack_of_space(step, error)  # before what was written is removed
            self._recover(step)
            if reason is not None:
                raise UserError(reason) from error
            raise
        self._recover(step)  # removes the one that was replaced
        self._rotate(step)
        return self._checkpoint(step)

    def newest(self, *, quiet: bool = False) -> Path | None:
        """The newest whole checkpoint, or None; each newer one that is damaged is named in a warning.

        All of its files are read and hashed: 1.1 to 1.2 s for the 1.5 GB of GPT-2 124M with AdamW's state, where they
        are in memory and the processor has instructions for SHA-256.

        Args:
            quiet: Name none, for they were named before.
        """
        found = self._scan(_REPLACED) | self._scan(_WHOLE)
        for step in sorted(found, reverse=True):
            try:
                _check(found[step], contents=True)
            except _DamageError as error:
                if found[step].exists() and not quiet:  # else the run that writes here has rotated it meanwhile
                    logger.warning("The checkpoint %s is damaged and is skipped: %s.", found[step], error)
            else:
                return found[step]
        return None

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, ascending, by the names of the folders alone."""
        return sorted(self._scan(_WHOLE))

    def clean(self) -> int:
        """Put the folder in order after a writer that was killed; only for the process that holds the lock.

        Returns:
            How many temporary folders were removed; a warning says so.
        """
        removed = sum(self._recover(step) for step in sorted(self._scan(_TEMPORARY)))
        if removed:
            logger.warning("Removed what a killed run had left in %s; temporary folders: %d.", self.folder, removed)
        return removed

    def _checkpoint(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def _temporary(self, step: int, state: str) -> Path:
        return self.folder / f".checkpoint-{step}.{state}"

    def _scan(self, pattern: re.Pattern[str]) -> dict[int, Path]:
        if not self.folder.is_dir():
            return {}
        named = ((pattern.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in named if match and path.is_dir()}

    def _manifests(self) -> dict[int, dict[str, Any]]:
        """The manifests of the checkpoints whose files are there and have their sizes."""
        manifests = {}
        for step, checkpoint in self._scan(_WHOLE).items():
            try:
                manifests[step] = _check(checkpoint, contents=False)
            except _DamageError as error:
                logger.debug("Not counted: %s: %s", checkpoint, error)  # `newest` names it where it matters
        return manifests

    def _recover(self, step: int) -> int:
        """Bring the folders of one step to the state before or after a write; returns how many were removed."""
        checkpoint, replaced = self._checkpoint(step), self._temporary(step, "replaced")
        if replaced.exists() and not checkpoint.exists():
            replaced.rename(checkpoint)
        removed = 0
        for state in ("deleting", "unfinished", "replaced"):  # the first makes way for the names of the others
            if (folder := self._temporary(step, state)).exists():
                _remove(folder.rename(self._temporary(step, "deleting")))
                removed += 1
        return removed

    def _put_in_place(self, step: int, unfinished: Path) -> None:
        if self._checkpoint(step).exists():
            self._checkpoint(step).rename(self._temporary(step, "replaced"))
        unfinished.rename(self._checkpoint(step))
        _flush(self.folder)

    def _rotate(self, step: int) -> None:
        """Delete what neither `keep_last` nor `keep_best` asks for, of the whole checkpoints up to this step.

        What is damaged, or was not written by this class, neither counts nor is deleted. Later steps are there if a
        run was resumed from an older checkpoint: they do not push out what it writes now.
        """
        losses = {number: manifest["loss"] for number, manifest in self._manifests().items() if number <= step}
        ranked = sorted((loss, number) for number, loss in losses.items() if loss is not None)
        kept = {*sorted(losses)[-self.keep_last :], *(number for _, number in ranked[: self.keep_best])}
        self._delete(sorted(losses.keys() - kept))

    def delete_all(self) -> None:
        """Delete every checkpoint, damaged ones too; only for the process that holds the lock."""
        self._delete(self.steps())

    def _delete(self, steps: list[int]) -> None:
        deleting = [self._checkpoint(step).rename(self._temporary(step, "deleting")) for step in steps]
        if deleting:
            _flush(self.folder)  # the new names are on the disk before the first file goes
        for folder in deleting:
            _remove(folder)

    def _lack_of_space(self, step: int, error: BaseException) -> str | None:
        """The sentence to say if the disk was full."""
        reason = lack_of_space(error, self.folder)
        if reason is None:
            return None
        unfinished = self._temporary(step, "unfinished")
        written = sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file())
        needed = ""
        if manifests := self._manifests():
            size = sum(record["size"] for record in manifests[max(manifests)]["files"].values())
            needed = f", where checkpoint-{max(manifests)} takes {size / 1e6:,.1f} MB"
        return (
            f"The checkpoint of step {step} cannot be written to {self.folder}: {reason}, after "
            f"{written / 1e6:,.1f} MB{needed}; make room there or raise the limit, then resume the run from its newest "
            "checkpoint."
        )


def verify(checkpoint: Path) -> None:
    """Read a checkpoint and compare it with its manifest; files that are not in the manifest do not matter.

    Raises:
        UserError: If it is not whole; the sentence names the file, and what is wrong with it.
    """
    try:
        _check(Path(checkpoint), contents=True)
    except _DamageError as error:
        raise UserError(f"The checkpoint {checkpoint} is damaged: {error}; name another one.") from error


class _DamageError(Exception):
    """What is wrong with a checkpoint, as part of a sentence."""


def _check(checkpoint: Path, *, contents: bool) -> dict[str, Any]:
    """The manifest of a whole checkpoint: every file is there and has its size and, with `contents`, its hash."""
    manifest = _read_manifest(checkpoint)
    name = MANIFEST
    try:
        for name, record in manifest["files"].items():
            size = (checkpoint / name).stat().st_size
            if size != record["size"]:
                raise _DamageError(f"{name} has {size:,} bytes instead of {record['size']:,}")
        for name, record in manifest["files"].items() if contents else ():
            if _file_digest(checkpoint / name) != record["sha256"]:
                raise _DamageError(f"the contents of {name} are not those that were written (SHA-256)")
    except OSError as error:
        raise _DamageError(f"{name} cannot be read ({error.strerror})") from error
    return manifest


def _read_manifest(checkpoint: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
    except OSError as error:
        raise _DamageError(f"{MANIFEST} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _DamageError(f"{MANIFEST} is not valid JSON") from error
    if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _manifest_digest(manifest):
        raise _DamageError(f"the contents of {MANIFEST} are not those that were written (SHA-256)")
    if manifest["format_version"] != _FORMAT_VERSION:
        raise _DamageError(f"{MANIFEST} has format_version {manifest['format_version']}, not {_FORMAT_VERSION}")
    return manifest


def _manifest_digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # in pieces, and without the GIL


def _seal(folder: Path, step: int, loss: float | None) -> None:
    """Flush all that is in the folder to the disk, and then its manifest."""
    paths = sorted(folder.rglob("*"))
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": _file_digest(path)}
        for path in paths
        if not path.is_dir()
    }
    if MANIFEST in files:
        raise ValueError(f"{MANIFEST} is written by the store, and must not be among the checkpoint's files")
    for path in paths:
        _flush(path)
    manifest = {
        "format_version": _FORMAT_VERSION,
        "step": step,
        "loss": loss if loss is not None and math.isfinite(loss) else None,
        "files": files,
    }
    text = json.dumps(manifest | {"sha256": _manifest_digest(manifest)}, indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    _flush(folder / MANIFEST)
    _flush(folder)


def _flush(path: Path) -> None:
    """Have a file's contents, or a folder's names, on the disk: the one does not follow from the other (fsync(2))."""
    on_windows = os.name == "nt"  # which flushes only what may be written to, cannot open folders, and journals names
    if on_windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if on_windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # what some network file systems answer for folders
            raise
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Delete a folder that nobody needs; a failure, say for a file that is in use, is no reason to end a run."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        logger.warning("%s cannot be deleted (%s): delete it by hand.", folder, error.strerror)
