"""Finetuning a classifier with a frozen trunk, beside the book's loop and transformers' Trainer.

    python benchmarks/classification.py                                  # 124M: 12 layers, 64 texts, 5 epochs
    python benchmarks/classification.py --sizes 30m --rounds 3 --json classification.json
    python benchmarks/classification.py --device cuda --dtype fp32       # a GPU's default is 1,040 texts in bf16

All contenders finetune the same GPT-2 with the same weights on the same short messages, in batches of 8: the last
block, the final norm and a new head of two classes are trained, all else is frozen, dropout is 0; on one device and in
one number format. bf16, hfgpt's default on a GPU, is mixed precision over fp32 weights. Trainer's default is fp32; for
bf16 it is given `bf16=True`, and the loss of the book, whose code computes in fp32, is computed under `torch.autocast`.
fp32 on a GPU is true fp32 (no TF32).

    the book       its chapter 6: every text padded to the longest of the data set, all blocks run in every step
    transformers   Trainer with GPT2ForSequenceClassification and its padding to the longest text of each batch
    hfgpt          the engine, the frozen blocks' states computed once, batches of texts of similar length

That all compute the same logits is checked before any is timed. They take turns, an epoch each; evaluations are left
out of all. hfgpt's one-time computation is timed in every round, and counted once in its five epochs. Then each trains
its five epochs in one go, which shows whether the sum of the turns is what a user waits for.

README.md beside this file says what the columns mean.
"""

import importlib.util
import json
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from contenders import BUILD, SIZES, TAKE_WEIGHTS, Size
from measuring import (
    MIXED_PRECISION,
    as_it_was,
    autocast,
    begin,
    check_same_logits,
    chosen,
    chosen_device,
    chosen_dtype,
    draw_length,
    now,
    refuse_several_gpus,
    seconds,
)
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import DataCollatorWithPadding, GPT2ForSequenceClassification, PreTrainedTokenizerFast, Trainer

from hfgpt import HfGptConfig, HfGptForSequenceClassification
from hfgpt.data.labelled import load_labelled
from hfgpt.recipes.finetuned_classifier import FinetunedClassifier
from hfgpt.recipes.frozen_cache import CachedTexts, TrunkStates, cache_trunk_states, collate_states, decide_cache
from hfgpt.tokenization import encoding_from_gpt2_files
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback, Evaluation, StepReport, TrainingRun
from hfgpt.training.task import Batch, Task

EPOCHS = 5
BATCH_SIZE = 8
LEARNING_RATE = 5e-5  # the book's, as is the next
WEIGHT_DECAY = 0.1
CONTEXT = 256
LONGEST = 120  # tokens: what the book pads its messages to

# GPT-2 tokens of the messages of the SMS Spam Collection, as many of spam as of ham: so many percent of them have no
# more than so many. Where the collection itself is not at hand, lengths are drawn from these.
LENGTH_PERCENTILES = {
    0: 1, 5: 7, 10: 8, 20: 12, 30: 16, 40: 23, 50: 32, 60: 37, 70: 42, 80: 47, 90: 51, 95: 56, 99: 67, 100: LONGEST,
}  # fmt: skip


# ----------------------------------------------------------------------------------------------------------------------
# The texts
# ----------------------------------------------------------------------------------------------------------------------


class Messages(Dataset[dict[str, Any]]):
    """Token ids and classes, 0 or 1."""

    def __init__(self, token_ids: Sequence[Tensor], labels: Sequence[int]) -> None:
        self.token_ids, self.labels = token_ids, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.token_ids[index], "label": self.labels[index]}


def messages(number: int, size: Size) -> tuple[Messages, str]:
    """So many messages, half of them spam, and what they are."""
    folder, chance = os.environ.get("HFGPT_TEST_DATA"), random.Random(123)
    if folder:
        rows = load_labelled(str(Path(folder) / "sms-spam.tsv"), header=False)
        encoding = encoding_from_gpt2_files(Path(folder) / "gpt2")
        classes: list[list[str]] = [[], []]
        for row in rows:
            classes[row["label"]].append(row["text"])
        ids = [encoding.encode_ordinary(text) for texts in classes for text in chance.sample(texts, number // 2)]
        described = "messages of the SMS Spam Collection"
    else:
        lengths = [draw_length(LENGTH_PERCENTILES, chance) for _ in range(number)]
        ids = [[chance.randrange(50256) for _ in range(length)] for length in lengths]
        described = "random tokens, as long as messages of the SMS Spam Collection"
    # The last id pads, and stands in no text.
    tensors = [torch.tensor(text[:LONGEST]) % (size.vocabulary - 1) for text in ids]
    mean = sum(map(len, tensors)) / len(tensors)
    labels = [int(place >= number // 2) for place in range(number)]
    return Messages(tensors, labels), f"{number} {described}, {mean:.1f} tokens on average, padded to {LONGEST} at most"


# ----------------------------------------------------------------------------------------------------------------------
# The contenders: each trains so many epochs, and says how long its steps took
# ----------------------------------------------------------------------------------------------------------------------


def build_gpt2(size: Size) -> tuple[GPT2ForSequenceClassification, nn.Module]:
    """transformers' classifier with random weights, and the language model whose body it has."""
    torch.manual_seed(0)
    language_model = BUILD["transformers"](size, CONTEXT).model
    config = language_model.config
    config.pad_token_id, config.num_labels = size.vocabulary - 1, 2
    classifier = GPT2ForSequenceClassification(config)
    classifier.transformer.load_state_dict(language_model.transformer.state_dict())
    return classifier, language_model


class Book:
    """The loop of the book's section 6.7, without its evaluations, on the book's model."""

    name = "the book"

    def __init__(
        self,
        texts: Messages,
        size: Size,
        gpt2: GPT2ForSequenceClassification,
        body: nn.Module,
        device: str,
        dtype: str,
    ) -> None:
        from llms_from_scratch.ch06 import calc_loss_batch  # pip install --no-deps llms-from-scratch

        self.calc_loss_batch, self.device, self.dtype = calc_loss_batch, device, dtype
        wrapped = BUILD["book"](size, CONTEXT)
        TAKE_WEIGHTS["book"](wrapped, body)
        self.model = wrapped.model
        for parameter in self.model.parameters():
            parameter.requires_grad = False
        self.model.out_head = nn.Linear(size.hidden, 2)
        with torch.no_grad():
            self.model.out_head.weight.copy_(gpt2.score.weight)
            self.model.out_head.bias.zero_()  # transformers' head has none
        for module in (self.model.trf_blocks[-1], self.model.final_norm):
            for parameter in module.parameters():
                parameter.requires_grad = True
        self.model.to(device)
        padded = torch.full((len(texts), LONGEST), size.vocabulary - 1)
        for row, ids in zip(padded, texts.token_ids, strict=True):
            row[: len(ids)] = ids
        pairs = list(zip(padded, torch.tensor(texts.labels), strict=True))
        self.loader = DataLoader(pairs, BATCH_SIZE, shuffle=True, drop_last=True)  # type: ignore[arg-type]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids)[:, -1, :]

    def train(self, epochs: int) -> float:
        return seconds(lambda: [self.train_epoch() for _ in range(epochs)], self.device)

    def train_epoch(self) -> None:
        self.model.train()
        for input_batch, target_batch in self.loader:
            self.optimizer.zero_grad()
            with autocast(self.device, self.dtype):
                loss = self.calc_loss_batch(input_batch, target_batch, self.model, self.device)
            loss.backward()
            self.optimizer.step()


class TimeOfTraining(transformers.TrainerCallback):
    """Seconds from the beginning of Trainer's loop to its end, without what it prepares before."""

    def __init__(self, device: str) -> None:
        self.device = device

    def on_train_begin(self, *arguments: Any, **keywords: Any) -> None:
        self.began = now(self.device)

    def on_train_end(self, *arguments: Any, **keywords: Any) -> None:
        self.seconds = now(self.device) - self.began


class Transformers:
    """Trainer as it comes, but for the number format on a GPU, with the same layers frozen."""

    name = "transformers"

    def __init__(
        self,
        texts: Messages,
        size: Size,
        gpt2: GPT2ForSequenceClassification,
        body: nn.Module,
        device: str,
        dtype: str,
    ) -> None:
        self.model, self.device, self.dtype = gpt2.to(device), device, dtype
        gpt2.requires_grad_(False)
        for module in (gpt2.transformer.h[-1], gpt2.transformer.ln_f, gpt2.score):
            module.requires_grad_(True)
        pad_token = "<pad>"  # noqa: S105 (not a password)
        that_only_pads = Tokenizer(WordLevel({pad_token: size.vocabulary - 1}, unk_token=pad_token))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=that_only_pads, pad_token=pad_token)
        self.collate = DataCollatorWithPadding(tokenizer)
        self.rows = [
            {"input_ids": ids.tolist(), "label": label}
            for ids, label in zip(texts.token_ids, texts.labels, strict=True)
        ]
        self.folder = tempfile.TemporaryDirectory()

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits

    def train(self, epochs: int) -> float:
        timer = TimeOfTraining(self.device)
        arguments = transformers.TrainingArguments(
            output_dir=self.folder.name,
            per_device_train_batch_size=BATCH_SIZE,
            num_train_epochs=epochs,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            bf16=self.dtype == "bf16",
            use_cpu=self.device == "cpu",
        )
        with as_it_was(self.model):
            trainer = Trainer(
                self.model,
                arguments,
                self.collate,
                self.rows,  # type: ignore[arg-type]
                callbacks=[timer],
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        return timer.seconds


class Classify(Task):
    """Messages from the cache, judged on one of them."""

    unit = "texts"

    def __init__(self, texts: Messages, states: TrunkStates) -> None:
        self.train_examples = CachedTexts(texts, states)
        self.validation_examples = CachedTexts(Messages(texts.token_ids[:1], texts.labels[:1]), states)

    def lengths(self, examples: Any) -> list[int]:
        return [len(ids) for ids in examples.examples.token_ids]

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        return collate_states(examples)

    def count_targets(self, batch: Batch) -> int:
        return len(batch["labels"])


class TimeOfSteps(Callback):
    """Seconds from the evaluation before the first step to the end of the last step."""

    def __init__(self, device: str) -> None:
        self.device = device

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        if evaluation.step == 0:
            self.began = now(self.device)

    def on_step(self, run: TrainingRun, report: StepReport) -> None:
        if report.step == run.num_steps:
            self.seconds = now(self.device) - self.began


class Hfgpt:
    """The engine, on what the frozen part has made of the texts."""

    name = "hfgpt"

    def __init__(
        self,
        texts: Messages,
        size: Size,
        gpt2: GPT2ForSequenceClassification,
        body: nn.Module,
        device: str,
        dtype: str,
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            gpt2.save_pretrained(folder)
            config = HfGptConfig.from_pretrained(folder)
            model = HfGptForSequenceClassification.from_pretrained(folder, config=config)
        self.classifier, self.texts, self.device = FinetunedClassifier(model, "last_block").to(device), texts, device
        self.folder = tempfile.TemporaryDirectory()
        self.config = TrainingConfig(
            output_dir=self.folder.name,
            num_train_epochs=1,
            global_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            mixed_precision=MIXED_PRECISION[dtype],
        )
        self.accelerator = start_accelerator(self.config)
        self.states: TrunkStates | None = None

    def logits(self, ids: Tensor) -> Tensor:
        return self.classifier(ids).logits

    def compute_frozen_part(self) -> float:
        """Seconds for all texts, with the decision before and the file flushed after; nothing is there yet."""
        began = now(self.device)
        with tempfile.TemporaryDirectory(dir=self.folder.name) as name:
            folder = Path(name)
            ids = self.texts.token_ids
            assert decide_cache("true", self.classifier, ids, folder, self.accelerator).use
            self.states = cache_trunk_states(self.classifier, ids, folder, self.accelerator)
            return now(self.device) - began  # the memory map outlives the name of its file

    def train(self, epochs: int) -> float:
        assert self.states is not None
        timer = TimeOfSteps(self.device)
        self.config.num_train_epochs = epochs
        train(Classify(self.texts, self.states), self.classifier, self.config, self.accelerator, [timer])
        return timer.seconds


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


def measure(size_name: str, texts: Messages, rounds: int, whole: bool, device: str, dtype: str) -> list[dict[str, Any]]:
    """A row for each contender."""
    size = SIZES[size_name]
    gpt2, body = build_gpt2(size)
    # transformers' comes last: it freezes and trains the model whose weights the others copy
    book, ours, theirs = (
        contender(texts, size, gpt2.eval(), body, device, dtype) for contender in (Book, Hfgpt, Transformers)
    )
    contenders = [book, theirs, ours]
    check_same_logits(contenders, size, device)
    for contender in contenders:  # the first steps find their memory
        if contender is ours:
            ours.compute_frozen_part()
        contender.train(1)
    epochs: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    once: dict[str, list[float]] = {contender.name: [0.0] * rounds for contender in contenders}
    for number in range(rounds):
        first = number % len(contenders)  # each goes first in turn
        for contender in contenders[first:] + contenders[:first]:
            if contender is ours:
                once[ours.name][number] = ours.compute_frozen_part()
            epochs[contender.name].append(contender.train(1))
    in_one_go: dict[str, float] = {}
    for contender in contenders if whole else []:
        in_one_go[contender.name] = (ours.compute_frozen_part() if contender is ours else 0) + contender.train(EPOCHS)
    totals = {
        name: [before + EPOCHS * epoch for before, epoch in zip(once[name], epochs[name], strict=True)]
        for name in epochs
    }
    return [
        {
            "size": size_name,
            "dtype": dtype,
            "contender": name,
            "steps_per_epoch": len(texts) // BATCH_SIZE,
            "seconds_once_of_each_round": once[name],
            "seconds_per_epoch_of_each_round": epochs[name],
            "seconds_of_all_epochs_of_each_round": totals[name],
            "seconds_once": statistics.median(once[name]),
            "seconds_per_epoch": statistics.median(epochs[name]),
            "seconds_of_all_epochs": statistics.median(totals[name]),
            "time_relative_to_hfgpt": statistics.median(
                theirs / own for theirs, own in zip(totals[name], totals[ours.name], strict=True)
            ),
            "seconds_in_one_go": in_one_go.get(name),
            "time_in_one_go_relative_to_hfgpt": in_one_go[name] / in_one_go[ours.name] if whole else None,
        }
        for name in epochs
    ]


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def table_of(rows: list[dict[str, Any]]) -> Table:
    """All contenders at one size."""
    first = rows[0]
    title = f"{first['size']}, {first['dtype']}: {EPOCHS} epochs of {first['steps_per_epoch']} steps"
    table = Table(title=f"{title} of {BATCH_SIZE} texts")
    columns = ["contender", "once", "an epoch", f"{EPOCHS} epochs", "/ hfgpt", "in one go", "/ hfgpt"]
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        in_one_go, ratio = row["seconds_in_one_go"], row["time_in_one_go_relative_to_hfgpt"]
        table.add_row(
            row["contender"],
            f"{row['seconds_once']:.3g} s" if row["seconds_once"] else "-",
            f"{row['seconds_per_epoch']:.3g} s",
            f"{row['seconds_of_all_epochs']:.3g} s",
            f"{row['time_relative_to_hfgpt']:.2f}",
            "-" if in_one_go is None else f"{in_one_go:.3g} s",
            "-" if ratio is None else f"{ratio:.2f}",
        )
    return table


def main(
    sizes: Annotated[str, typer.Option(help="Comma-separated: 30m, 124m (tiny tries out the script).")] = "124m",
    texts: Annotated[
        int | None,
        typer.Option(min=BATCH_SIZE, help="Messages to train on, a multiple of 8. Default: 64 on CPU, 1,040 on CUDA."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Epochs that each contender trains by turns.")] = 5,
    whole: Annotated[bool, typer.Option(help="Then train all epochs in one go.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda. Default: cuda where there is one.")] = "",
    dtype: Annotated[str, typer.Option(help="fp32 or bf16. Default: fp32 on CPU, bf16 on CUDA.")] = "",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 for torch's own choice.")] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
) -> None:
    """Time the finetuning of a classifier with a frozen trunk."""
    device = chosen_device(device)
    refuse_several_gpus(device)
    dtype, size_names = chosen_dtype(dtype, device), chosen(sizes, list(SIZES), "--sizes")
    # On a GPU as many as the book trains on: an epoch of few would be over in an instant.
    texts = texts or (64 if device == "cpu" else 1040)
    if texts % BATCH_SIZE:
        raise typer.BadParameter(f"--texts {texts} is no multiple of {BATCH_SIZE}, so that epochs would differ")
    if not importlib.util.find_spec("llms_from_scratch"):
        raise typer.BadParameter("the book's code is not installed: pip install --no-deps llms-from-scratch")
    transformers.logging.disable_progress_bar()
    console = Console()
    environment = begin(console, device, threads)
    results: list[dict[str, Any]] = []
    for size_name in size_names:
        drawn, described = messages(texts, SIZES[size_name])
        console.print(described)
        rows = measure(size_name, drawn, rounds, whole, device, dtype)
        console.print(table_of(rows))
        results += rows
    if json_path:
        settings = {"rounds": rounds, "texts": texts, "sizes": {name: asdict(size) for name, size in SIZES.items()}}
        report = {"environment": environment, "settings": settings, "results": results}
        json_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
