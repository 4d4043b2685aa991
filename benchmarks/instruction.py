"""Finetuning for instructions, beside the book's loop and TRL's SFTTrainer.

    python benchmarks/instruction.py                                  # 124M: 12 layers, turns of 8 steps
    python benchmarks/instruction.py --sizes 30m --rounds 3 --json instruction.json
    python benchmarks/instruction.py --device cuda --dtype fp32       # a GPU's default is bf16

All contenders finetune the same GPT-2 with the same weights on the same 935 instructions, the training part of the
book's split, in the book's style of prompt, 8 in a batch, without dropout; on one device, and in one number format but
for one of them. bf16, the default of TRL and of hfgpt on a GPU, is mixed precision over fp32 weights. The book's code
computes in fp32; for bf16, its loss is computed under `torch.autocast` here. fp32 on a GPU is true fp32 (no TF32).

    book         its chapter 7: shuffled batches, its collate, loss on all tokens
    trl          SFTTrainer with GPT2LMHeadModel, as it comes: prompt and completion, activations recomputed
    trl-kept     the same with gradient_checkpointing off, so that nothing is recomputed
    trl-hfgpt    SFTTrainer as it comes, with hfgpt's model
    hfgpt        the engine: batches of similar length, the head computed where an answer is judged
    hfgpt-bf16   on the CPU: the same with mixed_precision bf16 and attn_implementation eager

That all compute the same logits is checked before any is timed. They take turns: each begins a run in its own batches,
whose first step, which finds its memory, is not timed. A GPU is waited for at the ends of a turn's first and last steps
only, so that nobody is held up between them, and there each has a turn before that is not timed. Tokens that bear loss
are those of the answers with their ends, for the book's loop, too, which learns the instructions besides.

README.md beside this file says what the columns mean.
"""

import gc
import importlib.util
import itertools
import json
import math
import statistics
import tempfile
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
from instruction_data import NUM_CONVERSATIONS, conversations
from measuring import (
    MIXED_PRECISION,
    as_it_was,
    autocast,
    begin,
    check_same_logits,
    chosen,
    chosen_device,
    chosen_dtype,
    now,
    refuse_several_gpus,
)
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from hfgpt.chat_templates import EncodedConversation
from hfgpt.data.conversation_batches import EncodedConversations, collate_conversations
from hfgpt.recipes.answer_loss import answer_loss
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback, StepReport, TrainingRun
from hfgpt.training.task import Batch, Task

BATCH_SIZE = 8
MOST_STEPS = NUM_CONVERSATIONS // BATCH_SIZE - 1  # timed in a turn: of one epoch all but the first
LEARNING_RATE = 5e-5  # the book's, as is the next
WEIGHT_DECAY = 0.1
CONTEXT = 1024


# ----------------------------------------------------------------------------------------------------------------------
# The contenders: each begins a run of so many steps, and says how long a step took, the first left out
# ----------------------------------------------------------------------------------------------------------------------


class StepClock:
    """Measures the mean time of a turn's steps but the first.

    Args:
        steps: Of the turn, 2 or more.
        device: Waited for at the ends of the first and of the last step.

    Attributes:
        seconds: The mean, once the last step has ended.
    """

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.device, self.ended = steps, device, 0
        self.began = self.seconds = math.nan

    def end_step(self) -> None:
        """To be called at the end of every step."""
        self.ended += 1
        if self.ended == 1:
            self.began = now(self.device)
        elif self.ended == self.steps:
            self.seconds = (now(self.device) - self.began) / (self.steps - 1)


class Book:
    """The loop of the book's section 7.6, without its evaluations, on the book's model."""

    name = "book"

    def __init__(
        self, encoded: list[EncodedConversation], size: Size, gpt2: nn.Module, device: str, dtype: str
    ) -> None:
        from llms_from_scratch.ch05 import calc_loss_batch  # pip install --no-deps llms-from-scratch
        from llms_from_scratch.ch07 import custom_collate_fn

        self.device, self.dtype = device, dtype
        self.calc_loss_batch, self.end = calc_loss_batch, size.vocabulary - 1
        wrapped = BUILD["book"](size, CONTEXT)
        TAKE_WEIGHTS["book"](wrapped, gpt2)
        self.model = wrapped.model.to(device)
        self.texts = [ids[:-1] for ids, _ in encoded]  # the collate appends the end

        def collate(texts: list[list[int]]) -> tuple[Tensor, Tensor]:
            return custom_collate_fn(texts, pad_token_id=self.end, allowed_max_length=CONTEXT, device=device)

        self.collate = collate

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids)

    def seconds(self, steps: int, seed: int) -> float:
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
        clock = StepClock(steps, self.device)
        self.model.train()
        for input_batch, target_batch in itertools.islice(loader, steps):
            optimizer.zero_grad()
            with autocast(self.device, self.dtype):
                loss = self.calc_loss_batch(input_batch, target_batch, self.model, self.device)
            loss.backward()
            optimizer.step()
            clock.end_step()
        self.model.zero_grad()
        return clock.seconds


class ClockOfTrainer(transformers.TrainerCallback):
    """Tells the clock when a step of a Trainer has ended."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
        self.clock.end_step()


class Trl:
    """SFTTrainer as it comes, but for the number format on a CPU."""

    name, family, options = "trl", "transformers", {}

    def __init__(
        self, encoded: list[EncodedConversation], size: Size, gpt2: nn.Module, device: str, dtype: str
    ) -> None:
        self.device, self.dtype = device, dtype
        wrapped = BUILD[self.family](size, CONTEXT)
        TAKE_WEIGHTS[self.family](wrapped, gpt2)
        self.model = wrapped.model.to(device)
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

    def seconds(self, steps: int, seed: int) -> float:
        import trl  # pip install trl

        clock = StepClock(steps, self.device)
        arguments = trl.SFTConfig(
            output_dir=self.folder.name,
            per_device_train_batch_size=BATCH_SIZE,
            max_steps=steps,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            completion_only_loss=True,
            seed=seed,
            bf16=self.dtype == "bf16",
            use_cpu=self.device == "cpu",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            **self.options,
        )
        with as_it_was(self.model):
            trainer = trl.SFTTrainer(
                self.model,
                arguments,
                train_dataset=self.rows,
                processing_class=self.tokenizer,
                callbacks=[ClockOfTrainer(clock)],
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        self.model.gradient_checkpointing_disable()
        self.model.zero_grad()
        del trainer
        gc.collect()  # it stands in a circle, and holds the optimizer's state
        return clock.seconds


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


class ClockOfEngine(Callback):
    """Tells the clock when a step of the engine has ended."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_step(self, run: TrainingRun, report: StepReport) -> None:
        self.clock.end_step()


class Hfgpt:
    """The engine."""

    name, attention = "hfgpt", "sdpa"

    def __init__(
        self, encoded: list[EncodedConversation], size: Size, gpt2: nn.Module, device: str, dtype: str
    ) -> None:
        self.device, self.dtype = device, dtype
        wrapped = BUILD["hfgpt"](size, CONTEXT)
        TAKE_WEIGHTS["hfgpt"](wrapped, gpt2)
        self.model, self.task = wrapped.model.to(device), Answer(encoded, size.vocabulary - 1)
        self.model.set_attn_implementation(self.attention)
        self.folder = tempfile.TemporaryDirectory()

    def logits(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits

    def seconds(self, steps: int, seed: int) -> float:
        clock = StepClock(steps, self.device)
        config = TrainingConfig(
            output_dir=self.folder.name,
            max_steps=steps,
            global_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            weight_decay=WEIGHT_DECAY,
            seed=seed,
            mixed_precision=MIXED_PRECISION[self.dtype],
        )
        AcceleratorState._reset_state()  # the number format of another contender
        train(self.task, self.model, config, start_accelerator(config), [ClockOfEngine(clock)])
        return clock.seconds


class HfgptBf16(Hfgpt):
    """The engine with matrix products in bf16, whose attention is quicker on a CPU without torch's fused kernel."""

    name, attention = "hfgpt-bf16", "eager"

    def __init__(
        self, encoded: list[EncodedConversation], size: Size, gpt2: nn.Module, device: str, dtype: str
    ) -> None:
        super().__init__(encoded, size, gpt2, device, "bf16")


CONTENDERS: dict[str, Callable[..., Any]] = {
    made.name: made for made in (Book, Trl, TrlKept, TrlHfgpt, Hfgpt, HfgptBf16)
}


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


def measure(
    size_name: str,
    encoded: list[EncodedConversation],
    names: list[str],
    rounds: int,
    steps: int,
    device: str,
    dtype: str,
) -> list[dict[str, Any]]:
    """A row for each contender."""
    size = SIZES[size_name]
    torch.manual_seed(0)
    gpt2 = BUILD["transformers"](size, CONTEXT).model
    contenders = [CONTENDERS[name](encoded, size, gpt2, device, dtype) for name in names]
    check_same_logits(contenders, size, device)
    per_step: dict[str, list[float]] = {name: [] for name in names}
    for contender in contenders if device == "cuda" else []:  # whose kernels are loaded as shapes first ask for them
        contender.seconds(steps + 1, seed=rounds)
    for number in range(rounds):
        first = number % len(contenders)  # each goes first in turn
        for contender in contenders[first:] + contenders[:first]:
            per_step[contender.name].append(contender.seconds(steps + 1, seed=number))
    # On average of an epoch: which conversations a turn has drawn is of no account.
    judged_per_step = BATCH_SIZE * sum(sum(mask) for _, mask in encoded) / len(encoded)
    return [
        {
            "size": size_name,
            "dtype": contender.dtype,
            "contender": name,
            "judged_tokens_per_step": judged_per_step,
            "seconds_per_step_of_each_round": per_step[name],
            "seconds_per_step": statistics.median(per_step[name]),
            "judged_tokens_per_second": judged_per_step / statistics.median(per_step[name]),
            "time_relative_to_hfgpt": statistics.median(
                theirs / own for theirs, own in zip(per_step[name], per_step[Hfgpt.name], strict=True)
            ),
        }
        for name, contender in zip(names, contenders, strict=True)
    ]


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def table_of(rows: list[dict[str, Any]]) -> Table:
    """All contenders at one size."""
    table = Table(title=f"{rows[0]['size']}: steps of {BATCH_SIZE} conversations")
    for column in ("contender", "dtype", "a step", "judged tokens/s", "/ hfgpt"):
        table.add_column(column, justify="left" if column in ("contender", "dtype") else "right")
    for row in rows:
        table.add_row(
            row["contender"],
            row["dtype"],
            f"{row['seconds_per_step']:.3g} s",
            f"{row['judged_tokens_per_second']:.1f}",
            f"{row['time_relative_to_hfgpt']:.2f}",
        )
    return table


def contenders_on(device: str, names: str) -> list[str]:
    """The comma-separated `names` of contenders, by default all that the device has; hfgpt must be among them."""
    there = [name for name in CONTENDERS if device == "cpu" or name != HfgptBf16.name]
    found = chosen(names or ",".join(there), list(CONTENDERS), "--contenders")
    if Hfgpt.name not in found:
        raise typer.BadParameter("--contenders lacks hfgpt, which the others are compared with")
    if HfgptBf16.name in found and device != "cpu":
        raise typer.BadParameter(
            f"--contenders: {HfgptBf16.name} is a contender on the CPU only; on a GPU give hfgpt and --dtype bf16"
        )
    return found


def main(
    sizes: Annotated[str, typer.Option(help="Comma-separated: 30m, 124m (tiny tries out the script).")] = "124m",
    contenders: Annotated[str, typer.Option(help="Comma-separated, with hfgpt. Default: all the device has.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 5,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MOST_STEPS, help="Timed steps of a turn. Default: 8 on CPU, 64 on CUDA.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda. Default: cuda where there is one.")] = "",
    dtype: Annotated[str, typer.Option(help="fp32 or bf16. Default: fp32 on CPU, bf16 on CUDA.")] = "",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 for torch's own choice.")] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
) -> None:
    """Time the finetuning of a GPT-2 on the book's instructions."""
    device = chosen_device(device)
    refuse_several_gpus(device)
    dtype = chosen_dtype(dtype, device)
    names, size_names = contenders_on(device, contenders), chosen(sizes, list(SIZES), "--sizes")
    steps = steps or (8 if device == "cpu" else 64)
    for package, contender in (("llms_from_scratch", "--no-deps llms-from-scratch"), ("trl", "trl")):
        if not importlib.util.find_spec(package):
            raise typer.BadParameter(f"{package} is not installed: pip install {contender}")
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()  # TRL tells the model of the padding token
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    console = Console()
    environment = begin(console, device, threads)
    results: list[dict[str, Any]] = []
    for size_name in size_names:
        encoded, described = conversations(SIZES[size_name])
        console.print(described)
        rows = measure(size_name, encoded, names, rounds, steps, device, dtype)
        console.print(table_of(rows))
        results += rows
    if json_path:
        settings = {"rounds": rounds, "steps": steps, "sizes": {name: asdict(size) for name, size in SIZES.items()}}
        report = {"environment": environment, "settings": settings, "results": results}
        json_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
