"""One training many times, each with something changed, and one table of what that does (the book's section 6.6 asks).

hfgpt classify ablate --config book
hfgpt classify ablate --config book --base.source my.csv --base.init_from my-model --seeds [1,2,3]
"""

import dataclasses
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from accelerate.utils.memory import clear_device_cache

from hfgpt.errors import ToldElsewhereError, UserError, exit_on_user_error
from hfgpt.evaluation.text_baselines import MAJORITY, TFIDF
from hfgpt.training.launch import asked_processes

from .classification_config import ClassificationConfig
from .configuration import config_from_fields, parse_config
from .console import print_table
from .finetune_classification import finetune_classification
from .weight_bars import hide_weight_bars

__all__ = ["AblationConfig", "main", "run_ablations"]


@dataclass(kw_only=True)
class AblationConfig:
    """Trainings that differ from one another in a few fields."""

    output_dir: str
    """Folder of the table; each training has a folder of its own in it, and one that is finished is not repeated."""
    base: dict[str, Any]
    """Fields of `hfgpt classify train` that all share."""
    variants: dict[str, dict[str, Any]]
    """By its name, the fields that each variant changes."""
    seeds: list[int] = field(default_factory=lambda: [42])
    """Every variant is trained with each of these: another split, another head, another order."""

    def problems(self) -> list[str]:
        """What cannot work, a sentence each."""
        found = []
        if not self.variants:
            found.append("variants is empty: name what is to be compared.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            found.append(f"seeds must be different numbers, one or more, but are {self.seeds}.")
        for name in ("output_dir", "seed", "overwrite_output_dir", "resume"):
            if name in self.base or any(name in fields for fields in self.variants.values()):
                found.append(f"{name} is not for base or variants: it follows from the variant's name and seed.")
        folders = [_folder_name(name) for name in self.variants]
        if "" in folders:
            name = next(name for name in self.variants if not _folder_name(name))
            found.append(f"A variant's folder is named after it, so {name!r} needs letters from a to z, or digits.")
        if len(set(folders)) < len(folders):
            found.append("variants have names that differ in signs only: rename them.")
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all variants from the command line; a user's mistake ends it with one sentence and status 2."""
    hide_weight_bars()
    with exit_on_user_error():
        arguments = sys.argv[1:] if arguments is None else arguments
        run_ablations(parse_config("classify_ablate", AblationConfig, __doc__ or "", arguments))


def run_ablations(config: AblationConfig) -> dict[str, Any]:
    """Train what is not trained yet, then print the table and write `ablations.json` and `ablations.png`.

    Returns:
        What `ablations.json` holds.

    Raises:
        UserError: If a launcher has started several processes, the fields of a variant do not go together, or its
            folder holds another training, before any is begun; or as `finetune_classification`, with the variant's
            name.
    """
    for name, number in asked_processes().items():
        if number > 1:
            raise UserError(
                f"hfgpt classify ablate trains one model after the other in one process, and {name} says that there "
                f"are {number}: start it without a launcher."
            )
    folder = Path(config.output_dir)
    trainings = {
        (name, seed): _training(config, name, seed, folder) for name, seed in product(config.variants, config.seeds)
    }
    finished = {which for which, training in trainings.items() if _is_finished(training)}  # refuses before any training
    for number, ((name, seed), training) in enumerate(trainings.items(), start=1):
        which = f"{number} of {len(trainings)}: {name}, seed {seed}"
        if (name, seed) in finished:
            print(f"--- {which}: finished before, in {training.output_dir}")
            continue
        print(f"--- {which}")
        try:
            stop_reason = finetune_classification(training).stop_reason
        except ToldElsewhereError:
            raise
        except UserError as error:
            raise UserError(f"Variant {name!r}, seed {seed}: {error}") from error
        if stop_reason is not None and stop_reason.interrupted:
            sys.exit(stop_reason.exit_code)
        clear_device_cache(garbage_collection=True)  # or the next model would find this one on its GPU
    found = {
        name: [
            json.loads((Path(trainings[name, seed].output_dir) / "results.json").read_text()) for seed in config.seeds
        ]
        for name in config.variants
    }
    summary: dict[str, Any] = {
        "seeds": config.seeds,
        "variants": {name: _summary(results) for name, results in found.items()},
    }
    (folder / "ablations.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draw_ablations(summary["variants"], folder / "ablations.png")
    _print(summary, folder)
    return summary


def _training(config: AblationConfig, name: str, seed: int, folder: Path) -> ClassificationConfig:
    own = {"seed": seed, "output_dir": str(folder / f"{_folder_name(name)}-seed-{seed}")}
    fields = {**config.base, **config.variants[name], **own}
    try:
        training = config_from_fields("classify_train", ClassificationConfig, fields)
    except UserError as error:
        raise UserError(f"Variant {name!r}: {error}") from error
    return dataclasses.replace(training, resume="auto")  # a training that was cut off is gone on with


def _folder_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _is_finished(training: ClassificationConfig) -> bool:
    """Whether this very training has been done.

    Raises:
        UserError: If its folder holds another one.
    """
    folder = Path(training.output_dir)
    if not (folder / "config.yaml").is_file():
        return False
    before = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) or {}
    now = dataclasses.asdict(training)
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise UserError(
            f"{folder} holds a training with another {', '.join(changed)}: name another output_dir, or delete it."
        )
    return (folder / "results.json").is_file()


def _summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of one variant, over the seeds."""
    accuracies = [result["test_accuracy"] for result in results]
    return {
        "trained_parameters": results[0]["trained_parameters"],
        "test_accuracies": accuracies,
        "test_accuracy": statistics.fmean(accuracies),
        "standard_deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "interval": results[0]["test_accuracy_interval"] if len(accuracies) == 1 else None,
        "test_macro_f1": statistics.fmean(result["test_macro_f1"] for result in results),
        "seconds": statistics.fmean(result["seconds"] for result in results),
        "others": {
            name: statistics.fmean(result["test_accuracies"][name] for result in results) for name in (MAJORITY, TFIDF)
        },
    }


def _print(summary: Mapping[str, Any], folder: Path) -> None:
    several = len(summary["seeds"]) > 1
    rows = []
    for name, found in summary["variants"].items():
        spread = (
            f" ± {100 * found['standard_deviation']:.1f}"
            if several
            else " [{:.1f}, {:.1f}]".format(*(100 * bound for bound in found["interval"]))
        )
        rows.append(
            [
                name,
                f"{found['trained_parameters']:,}",
                f"{100 * found['test_accuracy']:.1f}%{spread}",
                f"{found['test_macro_f1']:.3f}",
                f"{100 * found['others'][TFIDF]:.1f}%",
                f"{found['seconds'] / 60:.1f}",
            ]
        )
    spread = f"± over {len(summary['seeds'])} seeds" if several else "[95 %]"
    columns = ["variant", "trained", f"accuracy {spread}", "macro F1", "TF-IDF", "minutes"]
    print_table("Accuracy on the test texts", columns, rows)
    print(f"Numbers: {folder / 'ablations.json'}   Picture: {folder / 'ablations.png'}")


def draw_ablations(variants: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the accuracy of each variant, with its interval, or with one dot for each seed."""
    from matplotlib.figure import Figure  # not pyplot: it would keep global state and look for a display

    figure = Figure(figsize=(8, 1.2 + 0.45 * len(variants)), layout="constrained")
    axes = figure.add_subplot()
    for row, found in enumerate(variants.values()):
        mean = 100 * found["test_accuracy"]
        if found["interval"] is not None:
            low, high = (100 * bound for bound in found["interval"])
            axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], fmt="o", color="tab:blue", capsize=4)
        else:
            axes.plot(
                [100 * one for one in found["test_accuracies"]],
                [row] * len(found["test_accuracies"]),
                "o",
                color="tab:blue",
                alpha=0.4,
                markersize=5,
            )
            axes.plot(mean, row, "|", color="tab:blue", markersize=18, markeredgewidth=2)
        axes.annotate(f"{mean:.1f}", (mean, row), (0, 8), textcoords="offset points", ha="center", fontsize=8)
    baselines = {100 * found["others"][TFIDF] for found in variants.values()}
    if len(baselines) == 1:
        (baseline,) = baselines
        axes.axvline(baseline, linestyle="--", color="tab:gray", label=f"{TFIDF} ({baseline:.1f})")
        axes.legend(loc="lower left", fontsize=8)
    axes.set_yticks(range(len(variants)), variants)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy on the test texts (%)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=120)
