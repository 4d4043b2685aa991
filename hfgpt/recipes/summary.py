"""Several finished runs in one table: what each was, its losses, what it reached on its test set, how to publish it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfgpt.errors import UserError
from hfgpt.hub.facts_file import CARD_FACTS, read_facts

from .console import print_table
from .instruction_results import ANSWERS, print_samples, print_scores
from .run_folder import FINAL

__all__ = ["summarise"]


def summarise(folders: Sequence[Path], *, as_json: bool = False) -> None:
    """Print a table of the runs in these folders; of the last that has answers, also the scores by task and samples.

    Args:
        as_json: Print a list with what `results.json` of each run holds, and its folder, instead.

    Raises:
        UserError: If a folder holds no finished run.
    """
    results = [_read(folder) for folder in folders]
    if as_json:
        found = [{"run": str(folder), **result} for folder, result in zip(folders, results, strict=True)]
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    parents = {folder.resolve().parent for folder in folders}
    names = [folder.resolve().name if len(parents) == 1 else str(folder) for folder in folders]
    rows = [[name, *_numbers(result)] for name, result in zip(names, results, strict=True)]
    title = f"Runs in {folders[0].parent}" if len(parents) == 1 else "Runs"
    print_table(title, ["run", "steps", "min", "loss", "test in % [95%]"], rows)
    answered = [folder for folder in folders if (folder / ANSWERS).is_file()]
    for folder in answered[-1:]:
        test = json.loads((folder / "report.json").read_text(encoding="utf-8")).get("test")
        if test is not None:
            print_scores(f"Answers of {folder}", test)
        lines = (folder / ANSWERS).read_text(encoding="utf-8").splitlines()
        print_samples([json.loads(line) for line in lines])
    pictures = [str(path) for folder in folders for path in sorted(folder.glob("*.png"))]
    print("Pictures:   " + "\n            ".join(pictures))
    pushes = [f"hfgpt push {folder} --repo YOUR_NAME/{_repo_name(folder)}" for folder in filter(_is_for_use, folders)]
    if pushes:
        print("To the Hub: " + "\n            ".join(pushes))


def _is_for_use(folder: Path) -> bool:
    """Whether a run leaves a model for others: not one that is only to show what pretraining was good for."""
    path = folder / CARD_FACTS
    parent = read_facts(path)["lineage"]["parent"] if path.is_file() else None
    return (folder / FINAL).is_dir() and not (parent is not None and parent["only_shape"])


def _repo_name(folder: Path) -> str:
    """A name that the Hub takes, from the folder's."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", folder.resolve().name).strip("-")
    return name if name.startswith("hfgpt") else f"hfgpt-{name}".rstrip("-")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    if not path.is_file():
        raise UserError(f"{folder} holds no finished run, for there is no {path}: name the output_dir of one that is.")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): run the training again.") from error
    if not isinstance(results, dict) or "validation_after" not in results:
        raise UserError(f"{path} is not what a training writes: name the output_dir of one.")
    return results


def _numbers(results: dict[str, Any]) -> list[str]:
    """Steps, minutes, validation loss at the end, and what was reached on the test set."""
    loss = results["validation_after"]["loss"]
    reached = "-"
    if "test_accuracy" in results:
        reached = _share("accuracy", results["test_accuracy"], results["test_accuracy_interval"])
    elif "test_exact_match" in results:
        score = results["test_exact_match"]
        reached = _share("exact match", score["value"], score["interval"])
    seconds = results.get("seconds")
    minutes = "-" if seconds is None else f"{seconds / 60:.1f}"
    return [f"{results['steps']:,}", minutes, f"{loss:.3f}", reached]


def _share(name: str, value: float, interval: Sequence[float]) -> str:
    return f"{name} {100 * value:.1f} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
