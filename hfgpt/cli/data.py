"""`hfgpt data inspect`: what a data set is like, on one page."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from hfgpt.chat_templates import encode_conversations
from hfgpt.data.conversation_forms import Message
from hfgpt.data.inspection import Inspection, SplitReport, inspect_examples
from hfgpt.data.inspection_encoding import EncodingTrouble, find_lone_surrogates
from hfgpt.data.inspection_lengths import check_picture, draw_lengths, length_histogram
from hfgpt.data.inspection_sources import LoadedSplits, SourceOptions, load_splits
from hfgpt.errors import UserError
from hfgpt.recipes.console import print_table
from hfgpt.tokenization import TextEncoder, load_tokenizer

__all__ = ["inspect"]

LONGEST_EXCERPT = 70
LONGEST_BAR = 40


def inspect(
    source: str,
    options: SourceOptions,
    *,
    splits: Sequence[str],
    other_sources: dict[str, str],
    validation_fraction: float | None,
    test_fraction: float | None,
    tokenizer_name: str | None,
    near: bool,
    threshold: float,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Inspect a source and print what was found, for a reader or as JSON.

    Raises:
        UserError: A package that only this needs is not there, or the source, the tokenizer, the threshold or the
            picture's place is not as it should be.
    """
    if missing := [package for package in ("datasketch", "ftfy") if find_spec(package) is None]:
        raise UserError(f"To inspect data, {' and '.join(missing)} must be installed: pip install 'hfgpt[inspect]'.")
    if not 0 < threshold <= 1:
        raise UserError(f"--threshold is {threshold}; it must lie above 0 and be 1 at most.")
    if picture is not None:
        check_picture(picture.expanduser())
    tokenizer = load_tokenizer(tokenizer_name) if tokenizer_name is not None else None
    loaded = load_splits(
        source,
        options,
        splits=splits,
        other_sources=other_sources,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
    )
    inspection = inspect_examples(
        loaded.splits,
        count_tokens=partial(_count_tokens, TextEncoder(tokenizer)) if tokenizer else None,
        count_conversation_tokens=(
            partial(_count_conversation_tokens, tokenizer) if tokenizer and tokenizer.chat_template else None
        ),
        near=near,
        threshold=threshold,
        track=_track,
    )
    lone_surrogates = _lone_surrogates([source, *other_sources.values()])
    if picture is not None:
        title = f"{Path(source).name}: {sum(map(len, loaded.splits.values())):,} examples"
        draw_lengths(inspection.totals, inspection.unit, title, picture.expanduser())
    if as_json:
        print(json.dumps(_as_json(source, loaded, inspection, lone_surrogates), ensure_ascii=False))
        return
    _print_page(loaded, inspection, lone_surrogates)
    if picture is not None:
        print(f"\n{picture}: the histogram of lengths")


def _count_tokens(encode: TextEncoder, texts: list[str]) -> list[int]:
    return [len(ids) for ids in encode(texts)]


def _count_conversation_tokens(tokenizer: PreTrainedTokenizerFast, conversations: list[Sequence[Message]]) -> list[int]:
    return [len(encoded.input_ids) for encoded in encode_conversations(tokenizer, conversations)]


def _track(items: Sequence[Any], what: str) -> Iterable[Any]:
    return tqdm(items, desc=what, leave=False, dynamic_ncols=True, disable=None)  # None: not unless on a terminal


def _lone_surrogates(sources: Sequence[str]) -> list[EncodingTrouble]:
    local = [path for path in (Path(source).expanduser() for source in sources) if path.exists()]
    return [trouble for trouble in map(find_lone_surrogates, local) if trouble.count]


def _as_json(
    source: str, loaded: LoadedSplits, inspection: Inspection, lone_surrogates: Sequence[EncodingTrouble]
) -> dict[str, Any]:
    found = asdict(inspection)
    edges, counts = length_histogram(found.pop("totals"))
    histogram = {"unit": found.pop("unit"), "from": edges, "examples": counts}
    return {
        "source": source,
        "kind": loaded.kind,
        "description": loaded.description,
        **found,
        "lone_surrogates": [asdict(trouble) for trouble in lone_surrogates],
        "histogram": histogram,
    }


def _print_page(loaded: LoadedSplits, inspection: Inspection, lone_surrogates: Sequence[EncodingTrouble]) -> None:
    for line in loaded.description:
        print(line)
    _print_lengths(inspection)
    _print_histogram(inspection)
    _print_duplicates(loaded, inspection)
    _print_encoding(inspection.splits, lone_surrogates)
    _print_contents(loaded, inspection.splits)


def _print_lengths(inspection: Inspection) -> None:
    print(f"\n{', '.join(f'{split.name}: {split.examples:,}' for split in inspection.splits)}")
    for unit in dict.fromkeys(each.unit for each in inspection.lengths):
        rows = []
        for each in inspection.lengths:
            if each.unit == unit:
                numbers = (each.minimum, each.median, each.percentile_95, each.maximum, each.total)
                rows.append([f"{each.split}: {each.part}", *(f"{number:,}" for number in numbers)])
        print(f"\nLengths in {unit}")
        print_table("", ["", "min", "median", "95 %", "max", "total"], rows)


def _print_histogram(inspection: Inspection) -> None:
    edges, counts = length_histogram(inspection.totals)
    sums = [sum(each) for each in zip(*counts.values(), strict=True)]
    width = max(len(f"{edge:,}") for edge in edges)
    print(f"\nExamples by their whole length in {inspection.unit}")
    for edge, number in zip(edges, sums, strict=True):
        bar = "█" * round(LONGEST_BAR * number / max(sums)) or ("▏" if number else "")
        print(f"  from {edge:>{width},}  {bar} {number:,}")


def _print_duplicates(loaded: LoadedSplits, inspection: Inspection) -> None:
    rows = [
        (f"within {split.name}", split.repeated_examples, split.repeated_prompts, split.near_duplicates)
        for split in inspection.splits
    ]
    rows += [
        (f"{each.split}, also in {each.other}", each.examples, each.prompts, each.near_duplicates)
        for each in inspection.shared
    ]
    table = [[name, *("-" if number is None else f"{number:,}" for number in numbers)] for name, *numbers in rows]
    prompt = {"text": "text", "labelled": "text", "conversations": "prompt"}[loaded.kind]
    whole = {"text": "whole", "labelled": "text and class", "conversations": "prompt and answer"}[loaded.kind]
    print("\nRows that repeat another one, but for case and white space")
    print_table("", ["", whole, prompt, "nearly"], table)
    if inspection.num_near_pairs is not None:
        print(
            f"nearly: {inspection.num_near_pairs:,} pairs of {prompt}s that share {inspection.threshold:.0%} of their "
            "runs of five characters (Jaccard), or more"
        )
    if inspection.repetitions:
        print(f"\n{inspection.num_repeated_prompts:,} {prompt}s stand in several rows, most often")
    for repetition in inspection.repetitions:
        places = ", ".join(f"{split} {row}" for split, row in repetition.rows[:4])
        more = ", ..." if len(repetition.rows) > 4 else ""
        print(f"  {len(repetition.rows)} times  {_excerpt(repetition.prompt)}\n           rows {places}{more}")
    if inspection.near_pairs:
        print("\nThe nearest pairs, first those of two splits" if inspection.shared else "\nThe nearest pairs")
    for pair in inspection.near_pairs:
        print(f"  {pair.similarity:.2f}  {pair.first[0]} {pair.first[1]}: {_excerpt(pair.first_prompt)}")
        print(f"        {pair.second[0]} {pair.second[1]}: {_excerpt(pair.second_prompt)}")


def _print_encoding(splits: Sequence[SplitReport], lone_surrogates: Sequence[EncodingTrouble]) -> None:
    found = [(f"{split.name}: ", trouble) for split in splits for trouble in split.encoding]
    found += [("", trouble) for trouble in lone_surrogates]
    print("\nEncoding" if found else "\nEncoding: no trouble found")
    for name, trouble in found:
        print(f"  {name}{trouble.count:,} {'' if trouble in lone_surrogates else 'examples with '}{trouble.kind}")
        for place, sample in trouble.samples:
            print(f"    {place}: {sample}")


def _print_contents(loaded: LoadedSplits, splits: Sequence[SplitReport]) -> None:
    for split in splits:
        notes = [f"{split.empty_prompts:,} without text"] if split.empty_prompts else []
        if loaded.kind == "conversations":
            notes += [f"{split.empty_answers:,} without an answer"] if split.empty_answers else []
            samples = ", ".join(f"{answer!r} {count:,} times" for answer, count in split.short_answer_samples)
            notes += [f"{split.short_answers:,} answers of one or two characters ({samples})"] if samples else []
        words = ", ".join(f"{words} {count:,}" for words, count in split.first_words)
        print(f"\n{split.name}")
        for note in notes:
            print(f"  {note}")
        Console(soft_wrap=False).print(f"  begins with: {words}", markup=False, highlight=False)


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_EXCERPT else line[: LONGEST_EXCERPT - 1] + "…"
