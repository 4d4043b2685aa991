"""What of a folder goes to the Hub: files on a list, and nothing else; what stays behind is named with its reason.

A list of what may go, not of what may not: a key file, a data set or a notebook that somebody has left in a run's
folder is on no list, whatever it is called.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers.dynamic_module_utils import get_relative_import_files

from hfgpt.errors import UserError
from hfgpt.tokenization import TOKENIZER_FILES

from .facts_file import CARD_FACTS
from .public_text import public_value

__all__ = ["LeftOut", "PushedFile", "Selection", "files_to_push", "is_model_file", "is_weights_file", "leads_out"]

CARD, CONFIG, RUN_CONFIG = "README.md", "config.json", "run_config.yaml"

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")

PICTURES = (
    "loss_curve.png",
    "accuracy_curve.png",
    "confusion_matrix.png",
    "reliability_diagram.png",
    "exact_match.png",
)
"""The pictures that the recipes draw; by name, for a screenshot is a picture, too."""

RUN = ("metrics.jsonl", "results.json", *PICTURES)
"""What a run's folder adds to the model in its `final/`."""

REASONS = {
    "report.json": "may quote the data",
    "test_answers.jsonl": "quotes the data",
    "samples.jsonl": "text that the model wrote may quote the data",
    "training_args.bin": "a pickle, which can run code where it is opened",
}
"""Why files that one would expect stay behind."""

# What of the above the .gitattributes of a new repository keeps out of git, and the Hub's limit for files in git.
LFS_SUFFIXES = (".safetensors",)
LFS_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class PushedFile:
    """A file as it would be sent."""

    path: str
    """Its path in the repository."""
    source: Path
    """Where it stands here."""
    content: bytes | None = None
    """What is sent in place of the file's own bytes, where that is something else; the file here stays as it is."""

    num_bytes: int = field(init=False)
    """How much is sent."""

    def __post_init__(self) -> None:
        size = self.source.stat().st_size if self.content is None else len(self.content)
        object.__setattr__(self, "num_bytes", size)  # known for good, also when a converted file is gone

    @property
    def is_lfs(self) -> bool:
        """Whether a new repository keeps such a file apart from git, as far as one can know without asking the Hub."""
        return self.path.endswith(LFS_SUFFIXES) or self.num_bytes > LFS_BYTES

    def read(self) -> bytes:
        """What is sent."""
        return self.source.read_bytes() if self.content is None else self.content


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that stays behind."""

    path: str
    """Relative to the folder that was given; a folder's ends with a slash."""
    reason: str


@dataclass(frozen=True)
class Selection:
    """What goes and what stays, each sorted by path."""

    files: list[PushedFile]
    left_out: list[LeftOut]

    def find(self, path: str) -> PushedFile | None:
        """The file that goes to this path of the repository, if one does."""
        return next((file for file in self.files if file.path == path), None)


def is_weights_file(name: str) -> bool:
    """Whether transformers reads weights from a file of this name, also in formats that are never pushed."""
    pickled = re.fullmatch(r"pytorch_model(-\d{5}-of-\d{5})?\.bin(\.index\.json)?", name)
    return name in (WEIGHTS, WEIGHTS_INDEX) or bool(SHARD.fullmatch(name) or pickled)


def is_model_file(name: str) -> bool:
    """Whether a file of this name decides how a pushed model computes, reads or writes."""
    return is_weights_file(name) or name in (CONFIG, "generation_config.json", *TOKENIZER_FILES)


def files_to_push(folder: Path) -> Selection:
    """What of a model's folder would go to the Hub.

    Args:
        folder: That of a saved model, such as a run's `final/`; or that of a run, whose numbers and pictures then go
            beside its model.

    Raises:
        UserError: If there is no model in it, or one that could not be loaded again; or if a file of the model is a
            link to one outside the folder.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give that of a run or of its model, such as runs/demo.")
    if (folder / CONFIG).is_file():
        return _of_model(folder, folder)
    if (folder / "final" / CONFIG).is_file():
        return _of_run(folder)
    hint = "give the folder of a saved model."
    if (folder / "config.yaml").is_file():
        hint = "its run has not come to its end; go on with it by --resume auto, or give one of its checkpoints."
    raise UserError(f"There is no model in {folder}, because it has no {CONFIG}: {hint}")


def _of_model(folder: Path, given: Path) -> Selection:
    config = _read_json(folder / CONFIG)
    code, shards = _code_files(folder, config), _weights_files(folder)
    wanted = {CARD, CARD_FACTS, CONFIG, RUN_CONFIG, "generation_config.json", *TOKENIZER_FILES, *RUN, *code, *shards}
    for name in sorted(wanted):
        if (name in code or is_model_file(name)) and leads_out(folder / name, given):
            raise UserError(
                f"{folder / name} is a link to a file outside {given}, and what lies there is not pushed: put the file "
                "itself in its place."
            )
    return _select(folder, given, wanted, "not one of the files of a model")


def _of_run(folder: Path) -> Selection:
    model = _of_model(folder / "final", folder)
    run = _select(folder, folder, {*RUN, CARD_FACTS, "config.yaml"}, "not one of the files of a run", skip="final")
    files, left_out = list(model.files), [LeftOut(f"final/{item.path}", item.reason) for item in model.left_out]
    run_config = model.find(RUN_CONFIG)
    for file in run.files:
        if file.path == "config.yaml" and run_config is not None and file.read() == run_config.read():
            left_out.append(LeftOut(file.path, f"says the same as final/{RUN_CONFIG}"))
        elif model.find(file.path) is not None:
            left_out.append(LeftOut(file.path, "final/ has one of its own"))
        else:
            files.append(file)
    return Selection(sorted(files, key=lambda file: file.path), [*left_out, *run.left_out])


def leads_out(path: Path, given: Path) -> bool:
    """Whether a path is a link, or in one, to somewhere outside the folder that was given."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(given))  # which bears links in a circle


def _select(folder: Path, given: Path, wanted: set[str], otherwise: str, skip: str | None = None) -> Selection:
    files, left_out = [], []
    for path in sorted(folder.iterdir()):
        if path.name == skip:
            continue
        if leads_out(path, given):
            left_out.append(LeftOut(path.name, "a link that leads out of the folder"))
        elif path.name in wanted and path.is_file():
            content = _public_yaml(path) if path.suffix == ".yaml" else None
            # Of a link within the folder, the file itself: the link may lead elsewhere when it is sent.
            files.append(PushedFile(path.name, path.resolve() if path.is_symlink() else path, content))
        else:
            left_out.append(LeftOut(path.name + "/" * path.is_dir(), _reason(path, otherwise)))
    return Selection(files, left_out)


def _public_yaml(path: Path) -> bytes:
    """A configuration with every path of this machine in it cut down to its last component; the file stays as it is.

    Raises:
        UserError: If it is not YAML.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): write it anew or remove it.") from error
    return yaml.safe_dump(public_value(fields), sort_keys=False, allow_unicode=True, width=float("inf")).encode()


def _reason(path: Path, otherwise: str) -> str:
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        checkpoint = re.match(r"(superseded-)?checkpoint-\d+$", path.name)
        return "a checkpoint, for going on with the training" if checkpoint else "a folder"
    if is_weights_file(path.name):
        return "weights that the model's index does not name" if SHARD.match(path.name) else "pickled weights"
    return REASONS.get(path.name, otherwise)


def _code_files(folder: Path, config: Mapping[str, Any]) -> set[str]:
    """The modules that `auto_map` names, and what they import beside them.

    Raises:
        UserError: If one is missing.
    """
    auto_map = config.get("auto_map") or {}
    if not isinstance(auto_map, dict):
        raise UserError(f"auto_map in {folder / CONFIG} is not what save_pretrained writes: save the model again.")
    references = [name for value in auto_map.values() for name in ([value] if isinstance(value, str) else value or [])]
    # A reference to another repository ("org/name--module.Class") brings nothing that could be pushed from here.
    modules = {name.split(".")[0] for name in references if isinstance(name, str) and "--" not in name}
    files: set[str] = set()
    for module in sorted(modules):
        path = folder / f"{module}.py"
        try:
            files |= {path.name, *(Path(name).name for name in get_relative_import_files(path))}
        except OSError as error:
            missing = Path(error.filename or path).name
            raise UserError(
                f"{folder / CONFIG} names code in {missing}, which is not there, so that nobody could load the model: "
                "save it again with save_pretrained."
            ) from error
    return files


def _weights_files(folder: Path) -> set[str]:
    """The weights, and the index where they are in several files.

    Raises:
        UserError: If there are none, or one that the index names is missing.
    """
    if (folder / WEIGHTS).is_file():  # what transformers reads first
        return {WEIGHTS}
    if not (folder / WEIGHTS_INDEX).is_file():
        hint = "save the model with save_pretrained."
        if any(is_weights_file(path.name) for path in folder.iterdir()):
            hint = (
                f"its weights are pickled, which are never pushed; write them anew: hfgpt convert {folder} NEW_FOLDER"
            )
        raise UserError(f"There is no {WEIGHTS} in {folder}: {hint}")
    weight_map = _read_json(folder / WEIGHTS_INDEX).get("weight_map")
    if not (isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())):
        raise UserError(f"{folder / WEIGHTS_INDEX} is not what save_pretrained writes: save the model again.")
    shards = set(weight_map.values())
    for name in sorted(shards):
        if not SHARD.fullmatch(name) or not (folder / name).is_file():
            raise UserError(
                f"{folder / WEIGHTS_INDEX} names weights in {name}, which is not there: save the model again."
            )
    return {WEIGHTS_INDEX, *shards}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): save the model again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is not what save_pretrained writes: save the model again.")
    return found
