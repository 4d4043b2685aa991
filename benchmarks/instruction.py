"""Finetuning for instructions, beside the book's loop and TRL's SFTTrainer.

    python benchmarks/instruction.py                                  # 124M: 12 layers, turns of 8 steps
    python benchmarks/instruction.py --sizes 30m --rounds 3 --json instruction.json

All contenders finetune the same GPT-2 with the same weights on the same 935 instructions, the training part of the
book's split, in the book's style of prompt, 8 in a batch, without dropout; in fp32 but for one.

    book         its chapter 7: shuffled batches, its collate, loss on all tokens
    trl          SFTTrainer with GPT2LMHeadModel, as it comes: prompt and completion, activations recomputed
    trl-kept     the same with gradient_checkpointing off, so that nothing is recomputed
    trl-hfgpt    SFTTrainer as it comes, with hfgpt's model
    hfgpt        the engine: batches of similar length, the head computed where an answer is judged
    hfgpt-bf16   the same with mixed_precision bf16 and attn_implementation eager

That all compute the same logits is checked before any is timed. They take turns: each begins a run in its own batches,
whose first step, which finds its memory, is not timed. Tokens that bear loss are those of the answers with their ends,
for the book's loop, too, which learns the instructions besides.

README.md beside this file says what the columns mean.
"""

import gc
import importlib.util
import itertools
import json
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import datasets
import torch
import transformers
import typer
from accelerate.state import AcceleratorState
from contenders import BUILD, SIZES, TAKE_WEIGHTS, Size
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from train_step import chosen, environment_of
from transformers import PreTrainedTokenizerFast

from hfgpt.chat_templates import EncodedConversation, encode_conversations, set_chat_template
from hfgpt.data.conversation_batches import EncodedConversations, collate_conversations
from hfgpt.recipes.answer_loss import answer_loss
from hfgpt.tokenization import load_tokenizer
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback, StepReport, TrainingRun
from hfgpt.training.task import Batch, Task

NUM_CONVERSATIONS = 935  # 85% of 1,100
BATCH_SIZE = 8
LEARNING_RATE = 5e-5  # the book's, as is the next
WEIGHT_DECAY = 0.1
CONTEXT = 1024
END = 50256

# GPT-2 tokens of a prompt and of an answer in the training part of the book's file: so many percent of them have no
# more than so many. Where the file itself is not at hand, lengths are drawn from these.
PERCENTS = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)
PROMPT_LENGTHS = (35, 37, 38, 39, 40, 40, 41, 43, 49, 51, 54, 56, 61, 65)
ANSWER_LENGTHS = (2, 6, 7, 9, 10, 11, 12, 13, 14, 16, 20, 26, 41, 51)


# ----------------------------------------------------------------------------------------------------------------------
# The conversations
# ----------------------------------------------------------------------------------------------------------------------


def conversations(size: Size) -> tuple[list[EncodedConversation], str]:
    """The conversations to train on, and what they are."""
    folder = os.environ.get("HFGPT_TEST_DATA")
    if folder:
        entries = json.loads((Path(folder) / "instruction-data.json").read_text(encoding="utf-8"))[:NUM_CONVERSATIONS]
        tokenizer = load_tokenizer(Path(folder) / "gpt2")
        set_chat_template(tokenizer, "alpaca")
        encoded = encode_conversations(tokenizer, [_messages(entry) for entry in entries])
        described = "entries of instruction-data.json"
    else:
        encoded, described = (
            _drawn(random.Random(123)),
            "random tokens, as long as the entries of instruction-data.json",
        )
    end = size.vocabulary - 1
    encoded = [EncodedConversation([end if id == END else id % end for id in ids], mask) for ids, mask in encoded]
    tokens = sum(len(ids) for ids, _ in encoded)
    judged = sum(sum(mask) for _, mask in encoded)
    return encoded, (
        f"{len(encoded)} {described}, {tokens / len(encoded):.1f} tokens on average, "
        f"of which {judged / len(encoded):.1f} bear loss"
    )


def _messages(entry: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": entry["instruction"], "input": entry["input"] or None},
        {"role": "assistant", "content": entry["output"]},
    ]


def _drawn(chance: random.Random) -> list[EncodedConversation]:
    def draw_length(lengths: Sequence[int]) -> int:
        percent = chance.uniform(0, 100)
        after = next(place for place, mark in enumerate(PERCENTS) if mark >= percent)
        before = max(after - 1, 0)
        share = (percent - PERCENTS[before]) / max(PERCENTS[after] - PERCENTS[before], 1)
        return round(lengths[before] + (lengths[after] - lengths[before]) * share)

    encoded = []
    for _ in range(NUM_CONVERSATIONS):
        prompt, answer = draw_length(PROMPT_LENGTHS), draw_length(ANSWER_LENGTHS)
        ids = [*(chance.randrange(END) for _ in range(prompt + answer - 1)), END]
        encoded.append(EncodedConversation(ids, [False] * prompt + [True] * answer))
    return encoded


# ----------------------------------------------------------------------------------------------------------------------
# The contenders: each begins a run of so many steps, and says how long all but the first took
# ----------------------------------------------------------------------------------------------------------------------


class Book:
    """The loop of the book's section 7.6, without its evaluations, on the book's model."""

    name = "book"

    def __init__(self, encoded: list[EncodedConversation], size: Size, gpt2: nn.Module) -> None:
        from llms_from_scratch.ch05 import calc_loss_batch  # pip install --no-deps llms-from-scratch
        from llms_from_scratch.ch07 import custom_collate_fn

        self.calc_loss_batch, self.end = calc_loss_batch, size.vocabulary - 1
        wrapped = BUILD["book"](size, CONTEXT)
        TAKE_WEIGHTS["book"](wrapped, gpt2)
        self.model = wrapped.model
        self.texts = [ids[:-1] for ids, _ in encoded]  # the collate appends the end

        def collate(texts: list[list[int]]) -> tuple[Tensor, Tensor]:
            return custom_collate_fn(texts, pad_token_id=self.end, allowed_max_length=CONTEXT)

        self.collate = collate

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids)

    def seconds(self, steps: int, seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(
            self.texts,  # type: ignore[arg-type]
            BATCH_SIZE,
            shuffle=True,
            drop_last=True,
            collate_fn=self.collate,
            generator=generator,
        )
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        ends: list[float] = []
        self.model.train()
        for input_batch, target_batch in loader:
            optimizer.zero_grad()
            loss = self.calc_loss_batch(input_batch, target_batch, self.model, "cpu")
            loss.backward()
            optimizer.step()
            ends.append(time.perf_counter())
            if len(ends) == steps:
                break
        self.model.zero_grad()
        return _differences(ends)


def _differences(ends: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(ends)]


class EndsOfTrainersSteps(transformers.TrainerCallback):
    """When each step of a Trainer ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        self.ends.append(time.perf_counter())


class Trl:
    """SFTTrainer as it comes, but for the number format."""

    name, family, options = "trl", "transformers", {}

    def __init__(self, encoded: list[EncodedConversation], size: Size, gpt2: nn.Module) -> None:
        wrapped = BUILD[self.family](size, CONTEXT)
        TAKE_WEIGHTS[self.family](wrapped, gpt2)
        self.model = wrapped.model
        rows = [{"input_ids": ids, "completion_mask": list(map(int, mask))} for ids, mask in encoded]
        self.rows = datasets.Dataset.from_list(rows)
        pad_token = "<pad>"  # noqa: S105 (not a password)
        that_only_pads = Tokenizer(WordLevel({pad_token: size.vocabulary - 1}, unk_token=pad_token))
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=that_only_pads, pad_token=pad_token, eos_token=pad_token
        )
        self.folder = tempfile.TemporaryDirectory()

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits

    def seconds(self, steps: int, seed: int) -> list[float]:
        import trl  # pip install trl

        timer, forward = EndsOfTrainersSteps(), self.model.forward
        arguments = trl.SFTConfig(
            output_dir=self.folder.name,
            per_device_train_batch_size=BATCH_SIZE,
            max_steps=steps,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            completion_only_loss=True,
            seed=seed,
            bf16=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **self.options,
        )
        trainer = trl.SFTTrainer(
            self.model, arguments, train_dataset=self.rows, processing_class=self.tokenizer, callbacks=[timer]
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        self.model.forward = forward  # which it has replaced
        self.model.gradient_checkpointing_disable()
        self.model.zero_grad()
        del trainer
        gc.collect()  # it stands in a circle, and holds the optimizer's state
        return _differences(timer.ends)


class TrlKept(Trl):
    """The same without recomputing activations."""

    name, options = "trl-kept", {"gradient_checkpointing": False}


class TrlHfgpt(Trl):
    """SFTTrainer as it comes, with the model of hfgpt."""

    name, family = "trl-hfgpt", "hfgpt"


class Answer(Task):
    """Conversations that are judged on their answers; one is looked at before and after."""

    def __init__(self, encoded: list[EncodedConversation], pad_token_id: int) -> None:
        self.train_examples = EncodedConversations(encoded)
        self.validation_examples = EncodedConversations(encoded[:1])
        self.pad_token_id = pad_token_id

    def lengths(self, examples: Any) -> list[int]:
        return examples.lengths.tolist()

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        return collate_conversations(examples, self.pad_token_id)

    def count_targets(self, batch: Batch) -> int:
        return int((batch["shift_labels"] != -100).sum())

    def loss(self, model: nn.Module, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        return answer_loss(model, batch, num_items_in_batch)  # type: ignore[arg-type]


class EndsOfSteps(Callback):
    """When each step of the engine ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step(self, run: TrainingRun, report: StepReport) -> None:
        self.ends.append(time.perf_counter())


class Hfgpt:
    """The engine."""

    name, precision, attention = "hfgpt", "no", "sdpa"

    def __init__(self, encoded: list[EncodedConversation], size: Size, gpt2: nn.Module) -> None:
        wrapped = BUILD["hfgpt"](size, CONTEXT)
        TAKE_WEIGHTS["hfgpt"](wrapped, gpt2)
        self.model, self.task = wrapped.model, Answer(encoded, size.vocabulary - 1)
        self.model.set_attn_implementation(self.attention)
        self.folder = tempfile.TemporaryDirectory()

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits

    def seconds(self, steps: int, seed: int) -> list[float]:
        timer = EndsOfSteps()
        config = TrainingConfig(
            output_dir=self.folder.name,
            max_steps=steps,
            global_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            seed=seed,
            mixed_precision=self.precision,
        )
        AcceleratorState._reset_state()  # the number format of another contender
        train(self.task, self.model, config, start_accelerator(config), [timer])
        return _differences(timer.ends)


class HfgptBf16(Hfgpt):
    """The engine with matrix products in bf16, whose attention is quicker on a CPU without torch's fused kernel."""

    name, precision, attention = "hfgpt-bf16", "bf16", "eager"


CONTENDERS: dict[str, Callable[..., Any]] = {
    made.name: made for made in (Book, Trl, TrlKept, TrlHfgpt, Hfgpt, HfgptBf16)
}


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_same(contenders: list[Any], size: Size) -> None:
    """All must compute the same logits."""
    ids = torch.randint(size.vocabulary - 1, (3, 20), generator=torch.Generator().manual_seed(1))
    expected = contenders[0].logits(ids)
    for contender in contenders[1:]:
        torch.testing.assert_close(contender.logits(ids), expected, rtol=0, atol=1e-4, msg=contender.name)


def measure(
    size_name: str, encoded: list[EncodedConversation], names: list[str], rounds: int, steps: int
) -> list[dict[str, Any]]:
    """A row for each contender."""
    size = SIZES[size_name]
    torch.manual_seed(0)
    gpt2 = BUILD["transformers"](size, CONTEXT).model
    contenders = [CONTENDERS[name](encoded, size, gpt2) for name in names]
    check_same(contenders, size)
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(contenders)  # each goes first in turn
        for contender in contenders[first:] + contenders[:first]:
            seconds[contender.name].append(contender.seconds(steps + 1, seed=number))
    # On average of an epoch: which conversations a turn has drawn is of no account.
    judged_per_step = BATCH_SIZE * sum(sum(mask) for _, mask in encoded) / len(encoded)
    per_step = {name: [statistics.mean(turn) for turn in turns] for name, turns in seconds.items()}
    return [
        {
            "size": size_name,
            "contender": name,
            "judged_tokens_per_step": judged_per_step,
            "seconds_per_step_of_each_round": per_step[name],
            "seconds_per_step": statistics.median(per_step[name]),
            "judged_tokens_per_second": judged_per_step / statistics.median(per_step[name]),
            "time_relative_to_hfgpt": statistics.median(
                theirs / own for theirs, own in zip(per_step[name], per_step[Hfgpt.name], strict=True)
            ),
        }
        for name in names
    ]


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def table_of(rows: list[dict[str, Any]]) -> Table:
    """All contenders at one size."""
    table = Table(title=f"{rows[0]['size']}: steps of {BATCH_SIZE} conversations")
    for place, column in enumerate(["contender", "a step", "judged tokens/s", "/ hfgpt"]):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(
            row["contender"],
            f"{row['seconds_per_step']:.3g} s",
            f"{row['judged_tokens_per_second']:.1f}",
            f"{row['time_relative_to_hfgpt']:.2f}",
        )
    return table


def main(
    sizes: Annotated[str, typer.Option(help="Comma-separated: 30m, 124m (tiny tries out the script).")] = "124m",
    contenders: Annotated[str, typer.Option(help="Comma-separated, with hfgpt among them.")] = ",".join(CONTENDERS),
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a turn that are timed.")] = 8,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 for torch's own choice.")] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
) -> None:
    """Time the finetuning of a GPT-2 on the book's instructions on the CPU."""
    names = chosen(contenders, list(CONTENDERS), "--contenders")
    if Hfgpt.name not in names:
        raise typer.BadParameter("--contenders lacks hfgpt, which the others are compared with")
    for package, contender in (("llms_from_scratch", "--no-deps llms-from-scratch"), ("trl", "trl")):
        if not importlib.util.find_spec(package):
            raise typer.BadParameter(f"{package} is not installed: pip install {contender}")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()  # TRL tells the model of the padding token
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    if threads:
        torch.set_num_threads(threads)
    console = Console()
    environment = environment_of("cpu") | {"load": ", ".join(f"{load:.1f}" for load in os.getloadavg())}
    console.print(", ".join(f"{name} {value}" for name, value in environment.items()))
    results: list[dict[str, Any]] = []
    for size_name in chosen(sizes, list(SIZES), "--sizes"):
        encoded, described = conversations(SIZES[size_name])
        console.print(described)
        rows = measure(size_name, encoded, names, rounds, steps)
        console.print(table_of(rows))
        results += rows
    if json_path:
        settings = {"rounds": rounds, "steps": steps, "sizes": {name: asdict(size) for name, size in SIZES.items()}}
        report = {"environment": environment, "settings": settings, "results": results}
        json_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
