"""Conversations in, the same records with the model's answers out, in their order.

Answers are added to a `PartialFile` by the window of rows that is sorted by length. An answer does not depend on the
window, nor a sampled one on when it is drawn: so a run that goes on writes what one does that was never interrupted.
"""

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from hfgpt import HfGptForCausalLM
from hfgpt.chat_templates import encode_chat_prompt, stop_token_ids
from hfgpt.data.conversations import Form, load_conversations
from hfgpt.data.files import errors_of_the_user, list_files
from hfgpt.data.readers import read_whole_records
from hfgpt.data.sources import find_source
from hfgpt.errors import UserError
from hfgpt.evaluation.answers import score_answers
from hfgpt.serving.answering import answer_prompts
from hfgpt.serving.fingerprint import fingerprint_of
from hfgpt.training.run_lock import exclusive

from .partial_file import PartialFile, check_destination, check_writable, json_record

__all__ = ["ANSWER", "FINISHED", "SUFFIXES", "Drawing", "Questions", "answer_file"]

ANSWER, FINISHED = "answer", "finished"  # the columns that are added
SUFFIXES = (".jsonl", ".json")  # of what can be written
WINDOW_BATCHES = 16  # so many batches are sorted by length, and written, together

Record = tuple[Callable[[], str], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How answers are drawn: the arguments of `answer_prompts`."""

    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int


class Questions:
    """The conversations to answer, and the records that they were read from.

    An answer that stands at the end of a conversation is not shown to the model; it is what its own is compared with.

    Args:
        source: What `load_conversations` takes, as do the next three.

    Attributes:
        description: What was recognised, in lines to print.
        references: The answer of each conversation that has one, by its place.

    Raises:
        UserError: If it cannot be read, or has a column of the name of what is added.
    """

    def __init__(self, source: str, *, split: str, form: Form | None, system_prompt: str | None) -> None:
        loaded = load_conversations(source, split=split, form=form, unanswered="keep", system_prompt=system_prompt)
        self.source, self.description = source, loaded.description
        self._rows = loaded.dataset
        self.references: dict[int, str] = {}
        self.conversations: list[list[dict[str, Any]]] = []
        for place, messages in enumerate(self._rows["messages"]):
            if messages[-1]["role"] == "assistant":
                *messages, last = messages
                self.references[place] = last["content"]
            self.conversations.append(messages)
        self.tasks: list[str] | None = self._rows["task"][:] if "task" in self._rows.column_names else None
        for where, record in self.records():
            if taken := [name for name in (ANSWER, FINISHED) if name in record]:
                raise UserError(
                    f"{where()} has a field {taken[0]!r}, which is to hold what the model says: give it another name."
                )
            check_writable(record, where, source)

    def __len__(self) -> int:
        return len(self.conversations)

    def records(self) -> Iterator[Record]:
        """What the source holds for each conversation, with all its columns, and what says where it is."""
        if find_source(self.source, split="train", name=None, revision=None) == "local":
            for path in list_files(Path(self.source).expanduser()):
                with errors_of_the_user(path):
                    for where, record in read_whole_records(path):
                        yield partial(_in_file, where, path), record
            return
        for number, row in enumerate(self._rows, start=1):
            messages = [
                {name: value for name, value in message.items() if value is not None} for message in row["messages"]
            ]
            yield f"row {number} of {self.source}".format, {**row, "messages": messages}

    def encode(self, tokenizer: PreTrainedTokenizerFast, context: int) -> "list[array[int]]":
        """The tokens that each answer follows on.

        Raises:
            UserError: If a conversation leaves no room for an answer in the model's context, or does not fit the
                template.
        """
        prompts = []
        for (where, _), messages in zip(self.records(), self.conversations, strict=True):
            try:
                ids = encode_chat_prompt(tokenizer, messages)
            except UserError as error:
                raise UserError(f"{where()} cannot be put in the chat template: {error}") from error
            if len(ids) >= context:
                raise UserError(
                    f"{where()} has {len(ids)} tokens in the chat template, which leaves no room for an answer in the "
                    f"model's context of {context}: shorten it or take it out."
                )
            prompts.append(array("i", ids))
        return prompts

    def identity(self) -> list[Any]:
        """What says whether the source is still the same."""
        if find_source(self.source, split="train", name=None, revision=None) != "local":
            return [self.source, len(self)]
        states = [path.stat() for path in list_files(Path(self.source).expanduser())]
        return [[state.st_size, state.st_mtime_ns] for state in states]


def _in_file(where: Callable[[], str], path: Path) -> str:
    return f"{where()} of {path}"


def answer_file(
    model: HfGptForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: Questions,
    destination: Path,
    drawing: Drawing,
    *,
    batch_size: int,
    resume: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """Write each record with the model's answer to `destination`, with a progress bar.

    Args:
        model: On the device to compute on.
        tokenizer: With a chat template.
        destination: .jsonl, a record on each line, or .json, a list of them; `answer` and `finished` are added.
        drawing: How answers are drawn.
        batch_size: Prompts computed at once.
        resume: Go on with an interrupted run, if there is one.
        overwrite: Replace a file that is there, when the new one is complete.

    Returns:
        `num_answers`, how many of them were cut off (`unfinished`), and, if answers are known, what `score_answers`
        says of those.

    Raises:
        UserError: If the destination is in use, or a conversation cannot be answered.
    """
    check_destination(destination, SUFFIXES, resume=resume, overwrite=overwrite)
    prompts = questions.encode(tokenizer, model.config.max_position_embeddings)
    digest = xxhash.xxh3_64()
    for prompt in prompts:
        digest.update(len(prompt).to_bytes(4, "little") + prompt.tobytes())
    stop = stop_token_ids(tokenizer)
    settings = {
        "model": fingerprint_of(model, tokenizer, tokenizer.chat_template, stop),
        "file": questions.identity(),
        "template or system prompt": digest.hexdigest(),
        "batch size": batch_size,
        **{name.replace("_", " "): value for name, value in asdict(drawing).items()},
    }
    partial_file = PartialFile(destination, settings)
    with exclusive(partial_file.folder):
        try:
            if resume and PartialFile.rows_in(destination) is not None:
                partial_file.resume()
            else:
                partial_file.begin(b"" if destination.suffix.lower() == ".jsonl" else b"[")
            _answer_rows(model, tokenizer, questions, prompts, stop, partial_file, drawing, batch_size)
            summary: dict[str, Any] = {"num_answers": len(prompts), "unfinished": partial_file.counts["unfinished"]}
            summary |= _scores(questions, partial_file)
            partial_file.finish(b"" if destination.suffix.lower() == ".jsonl" else b"\n]\n")
        finally:
            partial_file.close()
    return summary


def _answer_rows(
    model: HfGptForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: Questions,
    prompts: "Sequence[array[int]]",
    stop: list[int],
    partial_file: PartialFile,
    drawing: Drawing,
    batch_size: int,
) -> None:
    is_list = partial_file.destination.suffix.lower() != ".jsonl"
    start = partial_file.num_rows
    records = islice(questions.records(), start, None)
    with tqdm(total=len(prompts), initial=start, desc="answer", unit="prompt", dynamic_ncols=True) as bar:
        for first in range(start, len(prompts), batch_size * WINDOW_BATCHES):
            window = prompts[first : first + batch_size * WINDOW_BATCHES]
            answers = answer_prompts(
                model,
                tokenizer,
                window,
                stop_token_ids=stop,
                batch_size=batch_size,
                first_index=first,
                on_progress=bar.update,
                **asdict(drawing),
            )
            lines = []
            of_window = zip(islice(records, len(answers)), answers, strict=True)
            for place, ((_, record), answer) in enumerate(of_window, start=first):
                line = json_record({**record, ANSWER: answer.text, FINISHED: answer.finished})
                lines.append((b",\n" if place else b"\n") + line if is_list else line + b"\n")
            unfinished = sum(not answer.finished for answer in answers)
            partial_file.add(b"".join(lines), len(lines), {"unfinished": unfinished})


def _scores(questions: Questions, partial_file: PartialFile) -> dict[str, Any]:
    """What the answers are worth, those from before an interruption too, where it is known what they should be."""
    if not questions.references:
        return {}
    written = (line.strip().rstrip(b",") for line in partial_file.lines())
    answers = [json.loads(line)[ANSWER] for line in written if line not in (b"", b"[")]
    places = list(questions.references)
    return score_answers(
        [answers[place] for place in places],
        list(questions.references.values()),
        None if questions.tasks is None else [questions.tasks[place] for place in places],
    )
