"""How well a small GPT, pretrained and finetuned here, tells spam from ham: the SMS Spam Collection, several splits.

    python benchmarks/sms.py sms-spam.tsv                              # five seeds
    python benchmarks/sms.py sms-spam.tsv --seeds 0,1 --out runs/sms --json sms.json

For each seed: the texts are de-duplicated, balanced and split (70/10/20) by `hfgpt classify train`'s own functions; a
GPT is pretrained on the training texts and on the ham that balancing left out, whose labels are not used; and it is
finetuned on the training texts. No validation or test text is in the pretraining, nor one that differs from it in case,
white space or form only. Beside it, on the same split: TF-IDF of words, and of 1 to 5 characters, both with logistic
regression. README.md beside this file has the figures.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from hfgpt.data.labelled import load_labelled
from hfgpt.data.labelled_split import LabelledSplits, normalised_text, split_labelled
from hfgpt.evaluation.text_baselines import TFIDF

CHARACTERS = "TF-IDF of 1 to 5 characters + logistic regression"


def write_unlabelled(splits: LabelledSplits, path: Path) -> None:
    """The texts that a pretraining may read; none of them is in validation or test."""
    texts = [*splits.train["text"], *splits.unused["text"]]
    kept_back = {normalised_text(text) for part in (splits.validation, splits.test) for text in part["text"]}
    if any(normalised_text(text) in kept_back for text in texts):
        raise RuntimeError("a text of validation or test is among those to pretrain on")
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")


def accuracy_of_characters(splits: LabelledSplits) -> float:
    """Of logistic regression on TF-IDF weights of 1 to 5 characters, in upper and lower case."""
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 5), lowercase=False, sublinear_tf=True)
    features = vectorizer.fit_transform(splits.train["text"])
    classifier = LogisticRegression(max_iter=1000, C=10).fit(features, splits.train["label"])
    return float(classifier.score(vectorizer.transform(splits.test["text"]), splits.test["label"]))


def run(*arguments: object) -> float:
    """Run an `hfgpt` command; its seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "hfgpt.cli.main", *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stdout[-1000:]}\n{finished.stderr[-2000:]}")
    return time.perf_counter() - began


def measure(source: Path, seed: int, out: Path) -> dict[str, Any]:
    """One split: its two trainings, and the accuracies on its test texts."""
    folder = out / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    splits = split_labelled(load_labelled(str(source)), seed=seed, balance="downsample")
    write_unlabelled(splits, folder / "unlabelled.jsonl")
    pretrained, classifier = folder / "pretrained", folder / "classifier"
    again = ("--overwrite_output_dir", "true", "--seed", seed)
    text = ("--source", folder / "unlabelled.jsonl")
    seconds = run("pretrain", "--config", "sms", *text, "--output_dir", pretrained, *again)
    labelled = ("--source", source, "--init_from", pretrained / "final")
    seconds += run("classify", "train", "--config", "sms", *labelled, "--output_dir", classifier, *again)
    results = json.loads((classifier / "results.json").read_text(encoding="utf-8"))
    return {
        "seed": seed,
        "num_train": len(splits.train),
        "num_test": len(splits.test),
        "gpt": results["test_accuracy"],
        "words": results["test_accuracies"][TFIDF],
        "characters": accuracy_of_characters(splits),
        "seconds": seconds,
    }


def difference(rows: list[dict[str, Any]], other: str) -> tuple[float, float, float]:
    """Mean of the paired differences over the splits, and its 95 % interval by Student's t."""
    found = [row["gpt"] - row[other] for row in rows]
    mean = statistics.fmean(found)
    if len(found) < 2:
        return mean, -math.inf, math.inf
    half = stats.t.ppf(0.975, len(found) - 1) * statistics.stdev(found) / math.sqrt(len(found))
    return mean, mean - half, mean + half


def main(
    source: Annotated[Path, typer.Argument(help="The collection's file, label and text with a tab between them.")],
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2,3,4",
    out: Annotated[Path, typer.Option(help="Folder of the trainings.")] = Path("runs/sms-seeds"),
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
) -> None:
    """Pretrain and finetune on several splits, beside two baselines."""
    rows = []
    for seed in seeds.split(","):
        rows.append(measure(source, int(seed), out))
        print(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    table = Table(title=f"SMS Spam Collection, {len(rows)} splits, {rows[0]['num_test']} test texts each")
    for column in ("seed", "GPT", "words", "characters", "minutes"):
        table.add_column(column, justify="right")
    for row in rows:
        accuracies = [f"{100 * row[name]:.1f}%" for name in ("gpt", "words", "characters")]
        table.add_row(str(row["seed"]), *accuracies, f"{row['seconds'] / 60:.1f}")
    means = [f"{100 * statistics.fmean(row[name] for row in rows):.2f}%" for name in ("gpt", "words", "characters")]
    table.add_row("mean", *means, f"{statistics.fmean(row['seconds'] for row in rows) / 60:.1f}", style="bold")
    Console().print(table)
    for other, name in (("words", TFIDF), ("characters", CHARACTERS)):
        mean, low, high = difference(rows, other)
        print(f"GPT less {name}: {100 * mean:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]")
    if json_path is not None:
        json_path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
