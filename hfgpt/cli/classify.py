"""`hfgpt classify predict`: texts in, classes out; from the command line, a pipe or a file."""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import tee
from pathlib import Path

import yaml

from hfgpt.errors import UserError
from hfgpt.serving.classification import Classifier
from hfgpt.tokenization import replace_lone_surrogates

from .classified_file import SUFFIXES, Source, classify_file
from .partial_file import check_destination, exit_on_signals
from .standard_input import lines_of_standard_input


def predict_texts(model_name: str, texts: list[str], *, batch_size: int, as_json: bool) -> None:
    """Print the class of each text, a line each; without texts, those of standard input, one on each of its lines.

    Raises:
        UserError: If there are no texts, or the model cannot be loaded.
    """
    if not texts and sys.stdin.isatty():
        raise UserError("There is nothing to classify: give texts, a file with --file, or lines on standard input.")
    classifier = Classifier.load(model_name)
    _warn_if_other_texts(model_name, pairs=False)
    given, shown = tee(_arguments(texts) if texts else lines_of_standard_input())
    width = max(map(len, classifier.names))
    for text, prediction in zip(shown, classifier.classify(given, batch_size=batch_size), strict=True):
        if as_json:
            print(json.dumps({"text": text, **prediction._asdict()}, ensure_ascii=False), flush=True)
        else:
            print(f"{prediction.label:{width}}  {prediction.score:.3f}  {' '.join(text.split())}", flush=True)
    if notes := _notes(classifier.num_truncated, classifier.num_empty, classifier.max_length):
        print(f"hfgpt: of {classifier.num_texts:,} texts, {notes}", file=sys.stderr)


def predict_file(
    model_name: str,
    path: Path,
    destination: Path,
    *,
    text_column: str | None,
    text_pair_column: str | None,
    label_column: str | None,
    header: bool,
    batch_size: int,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Classify each row of a file into another one, and say what came of it.

    A signal ends the process with 128 + its number; the rows so far are kept, and it says how to go on.

    Raises:
        UserError: If the model, the file, one of its columns or the destination is not as it should be.
    """
    with exit_on_signals(destination, overwrite):
        check_destination(destination, SUFFIXES, resume=resume, overwrite=overwrite)  # before the model is loaded
        classifier = Classifier.load(model_name)
        _warn_if_other_texts(model_name, pairs=text_pair_column is not None)
        source = Source(
            path,
            text_column=text_column,
            text_pair_column=text_pair_column,
            label_column=label_column,
            header=header,
            names=classifier.names,
        )
        summary = classify_file(
            classifier, source, destination, batch_size=batch_size, resume=resume, overwrite=overwrite
        )
    if as_json:
        print(json.dumps({"out": str(destination), **summary}, ensure_ascii=False))
        return
    columns = " and ".join(repr(column) for column in source.text_columns)
    print(f"{destination}: {summary['rows']:,} rows, classified by {columns}")
    if notes := _notes(summary["truncated"], summary["empty"], classifier.max_length):
        print(notes)
    if "accuracy" in summary:
        correct = round(summary["accuracy"] * summary["rows"])
        print(f"accuracy {summary['accuracy']:.2%}: {correct:,} of {summary['rows']:,} as in {source.label_column!r}")


def _warn_if_other_texts(model_name: str, *, pairs: bool) -> None:
    """A model that was trained on pairs judges single texts, too, and knows nothing of them; the recipe's file says."""
    path = Path(model_name).expanduser() / "run_config.yaml"
    if not path.is_file():
        return
    trained_on = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("text_pair_column")
    if trained_on and not pairs:
        print(
            f"hfgpt: the model was trained on pairs of texts, and single ones are given: name the second column of a "
            f"file by --text-pair-column ({trained_on!r} in training).",
            file=sys.stderr,
        )
    elif pairs and not trained_on:
        print("hfgpt: the model was trained on single texts, and pairs are given.", file=sys.stderr)


def _notes(num_truncated: int, num_empty: int, max_length: int) -> str:
    notes = [f"{num_truncated:,} truncated to {max_length} tokens"] if num_truncated else []
    notes += [f"{num_empty:,} empty"] if num_empty else []
    return ", ".join(notes)


def _arguments(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        replaced, number = replace_lone_surrogates(text)  # bytes that are not UTF-8 arrive as lone surrogates
        if number:
            print(f"hfgpt: {number} bytes of a text are not UTF-8 and were replaced.", file=sys.stderr)
        yield replaced
