"""One training step of ours beside one of transformers' GPT-2, of the book's model and of nanoGPT.

    python benchmarks/train_step.py                                  # every contender, 30M and 124M, fp32 and bf16
    python benchmarks/train_step.py --sizes 30m --dtypes fp32 --rounds 5 --json step.json
    python benchmarks/train_step.py --peer nanogpt=PATH_OF_A_CHECKOUT
    python benchmarks/train_step.py --peer former=PATH_OF_A_CHECKOUT --reference former    # before and after a change

A step is the forward pass to plain logits, cross-entropy, the backward pass, clipping to norm 1, AdamW (fused) and
`zero_grad(set_to_none=True)`, on one fixed batch of random ids. All contenders are the same GPT-2 (tied head, q/k/v
biases, dropout 0) with the same weights, and must compute the same loss before any is timed. bf16 is `torch.autocast`
over fp32 weights for all. Attention is `scaled_dot_product_attention`, but for the book's model, whose own it is.

The contenders take turns in one process, so that whatever else the machine does falls on all of them. Reported are the
median over the rounds, and the median of the ratios within a round.

README.md beside this file says what the columns mean.
"""

import importlib.util
import json
import math
import multiprocessing
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from contenders import BUILD, SIZES, TAKE_WEIGHTS, Size
from measuring import DTYPES, autocast, begin, chosen, chosen_device, chosen_one, seconds, why_no_bf16
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

WARM_UP_STEPS = 2  # the first compiles and makes the optimizer's state, the second finds all memory allocated
PEAK_MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}  # large enough that a product of such matrices runs at full speed


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What all contenders of one table do."""

    size_name: str
    dtype_name: str
    device: str
    batch: int
    tokens: int
    threads: int
    peers: dict[str, Path] = field(default_factory=dict)

    @property
    def size(self) -> Size:
        return SIZES[self.size_name]

    def build(self, family: str) -> nn.Module:
        torch.manual_seed(0)
        checkout = {"checkout": self.peers[family]} if family in self.peers else {}
        return BUILD[family](self.size, self.tokens, **checkout)


class Contender:
    """A model in training: `step()` trains one step and returns the loss as a tensor, unread.

    Args:
        name: `FAMILY:MODE`, such as `hfgpt:compiled`.
        loss: the module that gives the loss for (ids, targets).
        work: what to do.
    """

    def __init__(self, name: str, loss: nn.Module, work: Work) -> None:
        self.name, self.family, self.mode = name, *name.split(":")
        loss.to(work.device).train()
        self.parameters = list(loss.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.1, fused=True)
        self.loss = torch.compile(loss) if self.mode == "compiled" else loss
        self.work = work
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(work.size.vocabulary, (work.batch, work.tokens + 1), generator=generator).to(work.device)
        self.ids, self.targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        self.peak_memory: int | None = None

    def forward(self) -> Tensor:
        with autocast(self.work.device, self.work.dtype_name):
            return self.loss(self.ids, self.targets)

    def step(self) -> Tensor:
        loss = self.forward()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def enter(name: str, work: Work, gpt2: GPT2LMHeadModel, expected_loss: float) -> Contender:
    """A contender ready to be timed: with the weights of `gpt2`, checked, warmed up, its memory measured (CUDA)."""
    allocated = torch.cuda.memory_allocated() if work.device == "cuda" else 0
    family = name.partition(":")[0]
    loss = work.build(family)
    TAKE_WEIGHTS[family](loss, gpt2)
    contender = Contender(name, loss, work)
    with torch.no_grad():
        found = float(contender.forward())
    # fp32 differs by the order of sums, bf16 by roundings of 2^-9 that mostly cancel in the mean over the tokens.
    if not math.isclose(found, expected_loss, rel_tol=1e-5 if work.dtype_name == "fp32" else 2e-3):
        raise RuntimeError(f"{name} computes a loss of {found:.6f} where transformers computes {expected_loss:.6f}")
    for _ in range(WARM_UP_STEPS):
        contender.step()
    if work.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        contender.step()
        contender.peak_memory = torch.cuda.max_memory_allocated() - allocated
    return contender


def interleave(
    contenders: list[Contender], work: Work, rounds: int, steps: int
) -> tuple[dict[str, list[float]], float]:
    """Times the contenders by turns: ({name: seconds a step, one per round}, the best matrix-product FLOP/s)."""
    side = PEAK_MATRIX_SIZE[work.device]
    left, right = (torch.randn(side, side, device=work.device, dtype=DTYPES[work.dtype_name]) for _ in range(2))
    torch.mm(left, right)
    best = 0.0
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        best = max(best, *(2 * side**3 / seconds(lambda: torch.mm(left, right), work.device) for _ in range(3)))
        first = number % len(contenders)  # each goes first in turn, so that none always follows the same other
        for contender in contenders[first:] + contenders[:first]:
            elapsed = seconds(lambda: [contender.step() for _ in range(steps)], work.device)  # noqa: B023 (run at once)
            times[contender.name].append(elapsed / steps)
    return times, best


def resident_bytes(name: str) -> int:
    """VmRSS (now) or VmHWM (highest since the last reset) of this process, in bytes; Linux."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")) * 1024


def _peak_of_fresh_process(name: str, work: Work, answer: Any) -> None:
    torch.set_num_threads(work.threads)
    before = resident_bytes("VmRSS")
    contender = Contender(name, work.build(name.partition(":")[0]), work)
    for _ in range(WARM_UP_STEPS):
        contender.step()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM starts again from VmRSS
    contender.step()
    answer.send(resident_bytes("VmHWM") - before)


def cpu_peak_memory(name: str, work: Work) -> int | None:
    """What a step needs at its height, weights and optimizer included: the resident memory of a process of its own.

    None where the system does not tell (anywhere but on Linux).
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    processes = multiprocessing.get_context("spawn")
    here, there = processes.Pipe(duplex=False)
    process = processes.Process(target=_peak_of_fresh_process, args=(name, work, there))
    process.start()
    there.close()
    try:
        return int(here.recv())
    except EOFError:
        raise RuntimeError(f"the process that measured the memory of {name} died") from None
    finally:
        process.join()


def measure(
    names: list[str], work: Work, rounds: int, steps: int, memory: bool, reference_family: str
) -> Iterator[dict[str, Any]]:
    """One row per contender."""
    torch._dynamo.reset()
    reference = work.build("transformers")
    reference_contender = Contender("transformers:eager", reference, work)
    with torch.no_grad():
        expected_loss = float(reference_contender.forward())
    gpt2 = reference.cpu().model
    del reference_contender
    contenders = [enter(name, work, gpt2, expected_loss) for name in names]
    times, peak_flops = interleave(contenders, work, rounds, steps)
    flops = work.size.flops_per_token(work.tokens)
    for contender in contenders:
        step_seconds = statistics.median(times[contender.name])
        tokens_per_second = work.batch * work.tokens / step_seconds
        rival = times.get(f"{reference_family}:{contender.mode}")
        ratios = [theirs / own for theirs, own in zip(rival, times[contender.name], strict=True)] if rival else None
        on_cpu = memory and work.device == "cpu"
        yield {
            "size": work.size_name,
            "dtype": work.dtype_name,
            "contender": contender.family,
            "mode": contender.mode,
            "parameters": sum(weights.numel() for weights in contender.parameters),
            "batch_size": work.batch,
            "sequence_length": work.tokens,
            "loss_before_training": expected_loss,
            "seconds_per_step": step_seconds,
            "seconds_per_step_of_each_round": times[contender.name],
            "tokens_per_second": tokens_per_second,
            "flops_per_token": flops,
            "matrix_product_peak_flops": peak_flops,
            "share_of_peak": tokens_per_second * flops / peak_flops,
            "peak_memory_bytes": cpu_peak_memory(contender.name, work) if on_cpu else contender.peak_memory,
            "reference": reference_family,
            "speed_relative_to_reference": statistics.median(ratios) if ratios else None,
        }


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def table_of(rows: list[dict[str, Any]]) -> Table:
    """The rows of one size and dtype."""
    first = rows[0]
    title = (
        f"{first['size']} ({first['parameters'] / 1e6:.1f}M parameters), {first['dtype']}, "
        f"{first['batch_size']} x {first['sequence_length']} tokens; "
        f"matrix products: {first['matrix_product_peak_flops'] / 1e12:.3g} TFLOP/s"
    )
    table = Table(title=title)
    for column in ("contender", "ms/step", "tokens/s", "of peak", "memory", "speed"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for row in rows:
        memory, ratio = row["peak_memory_bytes"], row["speed_relative_to_reference"]
        table.add_row(
            f"{row['contender']}, {row['mode']}",
            f"{1000 * row['seconds_per_step']:.4g}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['share_of_peak']:.1%}",
            "-" if memory is None else f"{memory / 2**20:,.0f} MiB",
            "-" if ratio is None else f"{ratio:.3f}",
        )
    return table


def find_peers(peers: list[str]) -> dict[str, Path]:
    """{family: checkout} from `nanogpt=PATH` and `former=PATH`."""
    found = {}
    for peer in peers:
        family, _, path = peer.partition("=")
        if family not in ("nanogpt", "former") or not path:
            raise typer.BadParameter(
                f"--peer {peer} is not understood: write --peer nanogpt=PATH or --peer former=PATH"
            )
        found[family] = Path(path).expanduser()
    return found


def main(
    sizes: Annotated[str, typer.Option(help="Comma-separated: 30m, 124m (tiny tries out the script).")] = "30m,124m",
    dtypes: Annotated[str, typer.Option(help="Comma-separated: fp32, bf16.")] = "fp32,bf16",
    contenders: Annotated[str, typer.Option(help="Comma-separated FAMILY:MODE. Default: all there are.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each contender has.")] = 10,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in a turn. Default: 1 on CPU, 10 on CUDA.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 for torch's own choice.")] = 0,
    batch_size: Annotated[int, typer.Option(min=0, help="Sequences in a batch; 0 for the size's own.")] = 0,
    sequence_length: Annotated[int, typer.Option(min=0, help="Tokens in a sequence; 0 for the size's own.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda. Default: cuda where there is one.")] = "",
    peer: Annotated[
        list[str] | None,
        typer.Option(help="nanogpt=PATH or former=PATH: also run a checkout of nanoGPT, or another one of hfgpt."),
    ] = None,
    reference: Annotated[str, typer.Option(help="The family that the column `speed` compares with.")] = "transformers",
    memory: Annotated[bool, typer.Option(help="On CPU, measure memory in processes of their own.")] = True,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
) -> None:
    """Time training steps of hfgpt, transformers' GPT-2, the book's model and nanoGPT."""
    transformers.logging.disable_progress_bar()
    console = Console()
    device = chosen_device(device)
    peers = find_peers(peer or [])
    families = ["hfgpt", "transformers", *(["book"] if importlib.util.find_spec("llms_from_scratch") else []), *peers]
    if "book" not in families:
        console.print("The book's model is left out: pip install --no-deps llms-from-scratch")
    known = [f"{family}:{mode}" for mode in ("eager", "compiled") for family in families]
    names = chosen(contenders or ",".join(known), known, "--contenders")
    reference = chosen_one(reference, families, "--reference")
    size_names, dtype_names = chosen(sizes, list(SIZES), "--sizes"), chosen(dtypes, list(DTYPES), "--dtypes")
    environment = begin(console, device, threads)
    results: list[dict[str, Any]] = []
    for size_name in size_names:
        for dtype_name in dtype_names:
            if dtype_name == "bf16" and (reason := why_no_bf16(device)):
                console.print(f"{size_name}, bf16: left out, since {reason}")
                continue
            size = SIZES[size_name]
            batch, tokens = size.cpu_batch if device == "cpu" else size.accelerator_batch
            work = Work(
                size_name,
                dtype_name,
                device,
                batch_size or batch,
                sequence_length or tokens,
                torch.get_num_threads(),
                peers,
            )
            rows = list(measure(names, work, rounds, steps or (1 if device == "cpu" else 10), memory, reference))
            console.print(table_of(rows))
            results += rows
    if json_path:
        settings = {"rounds": rounds, "sizes": {name: asdict(size) for name, size in SIZES.items()}}
        report = {"environment": environment, "settings": settings, "results": results}
        json_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
