"""Answering a test set, beside the book's generate and transformers' generate.

    python benchmarks/answering.py                                  # 124M, 110 prompts, 64 new tokens each
    python benchmarks/answering.py --sizes 30m --rounds 3 --json answering.json
    python benchmarks/answering.py --device cuda --sample 8

All contenders hold the same GPT-2 with the same random fp32 weights on the same device, and say 64 tokens to each
prompt, always the likeliest, whatever it is; on a GPU in true fp32 (no TF32), too:

    the book       `generate` of its chapter 5, which reads all tokens anew for each new one, prompt by prompt
    transformers   `generate` of its GPT-2, with its key/value cache, prompt by prompt
    hfgpt          `answer_prompts`, all at once

The prompts are the test part of the book's instruction data in its own template, where HFGPT_TEST_DATA names the folder
that holds the data; else random tokens, as long as those. That all say the same is checked before any is timed; for the
last tokens of an answer only if no rounding has decided before. In each round the first two answer a few of the prompts
and hfgpt all of them, in turns; a prompt's time is multiplied by their number.

README.md beside this file says what the columns mean.
"""

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
from measuring import begin, chosen, chosen_device, draw_length, seconds
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.serving.answering import DEFAULT_BATCH_SIZE, answer_prompts
from hfgpt.tokenization import encoding_from_gpt2_files

TEST_PART = slice(935, 1045)  # of the book's 1,100 entries: 85 % for training, then 10 % for the test
CONTEXT = 256
CLOSE = 1e-3  # two logits that differ by no more may change places by rounding

# GPT-2 tokens of those prompts: so many percent of them have no more than so many.
LONGEST = 62
LENGTH_PERCENTILES = {0: 36, 10: 38, 25: 39, 50: 41, 75: 50, 90: 53, 100: LONGEST}


# ----------------------------------------------------------------------------------------------------------------------
# The prompts
# ----------------------------------------------------------------------------------------------------------------------


def make_prompts(size: Size, number: int) -> tuple[list[list[int]], str]:
    """So many prompts, and what they are."""
    folder, chance = os.environ.get("HFGPT_TEST_DATA"), random.Random(123)
    if folder and size.vocabulary == 50257:
        entries = json.loads((Path(folder) / "instruction-data.json").read_text(encoding="utf-8"))[TEST_PART]
        encoding = encoding_from_gpt2_files(Path(folder) / "gpt2")
        prompts = [encoding.encode_ordinary(_in_template(entry)) for entry in entries[:number]]
        described = "test prompts of the book's instruction data"
    else:
        lengths = [draw_length(LENGTH_PERCENTILES, chance) for _ in range(number)]
        prompts = [[chance.randrange(size.vocabulary) for _ in range(length)] for length in lengths]
        described = "prompts of random tokens, as long as those of the book's instruction data"
    mean = sum(map(len, prompts)) / len(prompts)
    return prompts, f"{len(prompts)} {described}, {mean:.1f} tokens on average"


def _in_template(entry: dict[str, str]) -> str:
    """The book's section 7.2."""
    text = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    text += f"\n\n### Instruction:\n{entry['instruction']}"
    text += f"\n\n### Input:\n{entry['input']}" if entry["input"] else ""
    return text + "\n\n### Response:\n"


# ----------------------------------------------------------------------------------------------------------------------
# The contenders: each answers prompts by so many tokens
# ----------------------------------------------------------------------------------------------------------------------


class Book:
    """Its `generate`, prompt by prompt."""

    name = "the book"

    def __init__(self, size: Size, gpt2: nn.Module, device: str) -> None:
        from llms_from_scratch.ch05 import generate  # pip install --no-deps llms-from-scratch

        wrapped = BUILD["book"](size, CONTEXT)
        TAKE_WEIGHTS["book"](wrapped, gpt2)  # type: ignore[arg-type]
        self.model, self.generate, self.device = wrapped.model.eval().to(device), generate, device

    def answer(self, prompts: Sequence[list[int]], new_tokens: int) -> list[list[int]]:
        answers = []
        for prompt in prompts:
            output = self.generate(self.model, torch.tensor([prompt], device=self.device), new_tokens, CONTEXT)
            answers.append(output[0, len(prompt) :].tolist())
        return answers


class Transformers:
    """`generate`, prompt by prompt."""

    name = "transformers"

    def __init__(self, size: Size, gpt2: nn.Module, device: str) -> None:
        self.model: Any = gpt2.to(device)

    def answer(self, prompts: Sequence[list[int]], new_tokens: int) -> list[list[int]]:
        answers = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=self.model.device)
            output = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
            answers.append(output[0, len(prompt) :].tolist())
        return answers


class NoText:
    """In place of a tokenizer: only the tokens are looked at, by all."""

    def decode(self, token_ids: list[int], **options: Any) -> str:
        """Nothing."""
        return ""


class Hfgpt:
    """`answer_prompts`, with its own batch size."""

    name = "hfgpt"

    def __init__(self, size: Size, gpt2: nn.Module, device: str, batch_size: int = DEFAULT_BATCH_SIZE) -> None:
        with tempfile.TemporaryDirectory() as folder:
            gpt2.save_pretrained(folder)  # type: ignore[operator]
            model = HfGptForCausalLM.from_pretrained(folder, config=HfGptConfig.from_pretrained(folder))
        self.model, self.batch_size = model.eval().to(device), batch_size

    def answer(self, prompts: Sequence[list[int]], new_tokens: int) -> list[list[int]]:
        answers = answer_prompts(
            self.model,
            NoText(),  # type: ignore[arg-type]
            prompts,
            stop_token_ids=[],
            max_new_tokens=new_tokens,
            batch_size=self.batch_size,
        )
        return [answer.token_ids for answer in answers]


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_same(contenders: Sequence[Any], prompts: Sequence[list[int]], new_tokens: int) -> None:
    """All must say the same, up to where two tokens are as likely as each other."""
    first, *others = contenders
    expected = first.answer(prompts, new_tokens)
    for contender in others:
        for prompt, wanted, found in zip(prompts, expected, contender.answer(prompts, new_tokens), strict=True):
            if wanted == found:
                continue
            place = next(place for place, (one, other) in enumerate(zip(wanted, found, strict=True)) if one != other)
            logits: Tensor = first.model(torch.tensor([prompt + wanted[:place]], device=first.device))[0, -1]
            if logits[wanted[place]] - logits[found[place]] > CLOSE:
                raise RuntimeError(f"{contender.name} says {found}, and {first.name} {wanted}, to {prompt}")


def measure(
    size_name: str, prompts: list[list[int]], new_tokens: int, rounds: int, sample: int, batch_size: int, device: str
) -> list[dict[str, Any]]:
    """A row for each contender."""
    size = SIZES[size_name]
    torch.manual_seed(0)
    gpt2 = BUILD["transformers"](size, CONTEXT).model.eval()
    book, theirs = Book(size, gpt2, device), Transformers(size, gpt2, device)
    ours = Hfgpt(size, gpt2, device, batch_size)
    contenders: list[Any] = [book, theirs, ours]
    # Evenly spread over the lengths, whose mean is that of all but for a token.
    by_length = sorted(prompts, key=len)
    few = [by_length[int((place + 0.5) * len(prompts) / sample)] for place in range(sample)]
    check_same(contenders, few, new_tokens)
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        first = number % len(contenders)  # each goes first in turn
        for contender in contenders[first:] + contenders[:first]:
            own = prompts if contender is ours else few
            elapsed = seconds(lambda: contender.answer(own, new_tokens), device)  # noqa: B023 (run at once)
            times[contender.name].append(elapsed * len(prompts) / len(own))
    return [
        {
            "size": size_name,
            "contender": name,
            "prompts": len(prompts),
            "prompts_timed": len(prompts) if name == ours.name else len(few),
            "new_tokens": new_tokens,
            "seconds_of_each_round": values,
            "seconds": statistics.median(values),
            "tokens_per_second": len(prompts) * new_tokens / statistics.median(values),
            "time_relative_to_hfgpt": statistics.median(
                value / own for value, own in zip(values, times[ours.name], strict=True)
            ),
        }
        for name, values in times.items()
    ]


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def table_of(rows: list[dict[str, Any]]) -> Table:
    """All contenders at one size."""
    first = rows[0]
    table = Table(title=f"{first['size']}: {first['prompts']} prompts, {first['new_tokens']} new tokens each")
    for place, column in enumerate(["contender", "timed", "all prompts", "tokens/s", "/ hfgpt"]):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(
            row["contender"],
            str(row["prompts_timed"]),
            f"{row['seconds']:.3g} s",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['time_relative_to_hfgpt']:.1f}",
        )
    return table


def main(
    sizes: Annotated[str, typer.Option(help="Comma-separated: 30m, 124m (tiny tries out the script).")] = "124m",
    prompts: Annotated[int, typer.Option(min=1, help="Prompts to answer, up to 110.", max=110)] = 110,
    new_tokens: Annotated[int, typer.Option(min=1, max=CONTEXT - LONGEST, help="Tokens of each answer.")] = 64,
    sample: Annotated[int, typer.Option(min=1, help="Prompts that the others answer in each round.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each contender has.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="hfgpt's.")] = DEFAULT_BATCH_SIZE,
    device: Annotated[str, typer.Option(help="cpu or cuda. Default: cuda where there is one.")] = "",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 for torch's own choice.")] = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
) -> None:
    """Time answers to the prompts of a test set."""
    device, size_names = chosen_device(device), chosen(sizes, list(SIZES), "--sizes")
    if sample > prompts:
        raise typer.BadParameter(f"--sample {sample} is more than there are prompts, {prompts}")
    try:
        import llms_from_scratch  # noqa: F401
    except ImportError as error:
        raise typer.BadParameter("the book's code is not installed: pip install --no-deps llms-from-scratch") from error
    transformers.logging.disable_progress_bar()
    console = Console()
    environment = begin(console, device, threads)
    results: list[dict[str, Any]] = []
    for size_name in size_names:
        made, described = make_prompts(SIZES[size_name], prompts)
        console.print(described)
        rows = measure(size_name, made, new_tokens, rounds, sample, batch_size, device)
        console.print(table_of(rows))
        results += rows
    if json_path:
        settings = {
            "rounds": rounds, "sample": sample, "batch_size": batch_size,
            "sizes": {name: asdict(size) for name, size in SIZES.items()},
        }  # fmt: skip
        report = {"environment": environment, "settings": settings, "results": results}
        json_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
