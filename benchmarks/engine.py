"""What the training engine costs: a step beside a bare one, a checkpoint, and the way to the first step.

    python benchmarks/engine.py                                          # all three parts
    python benchmarks/engine.py --parts step --sizes 30m --dtypes fp32 --modes eager --rounds 20 --json engine.json
    python benchmarks/engine.py --parts checkpoint --sizes 124m --folder A_FOLDER_ON_THE_DISK_IN_QUESTION
    python benchmarks/engine.py --parts start

step: the engine as `hfgpt pretrain` runs it (data loader, count of targets, agreement, clipping, schedule, meter, a
line in metrics.jsonl every step, with and without a progress bar) and the bare step of train_step.py, on the same
shapes. They take turns: a listener of the engine's runs a bare step between two of its steps.

checkpoint: how much later the steps come when a checkpoint is written, in the background and in the foreground.

start: from the command `hfgpt pretrain` to its first step, on cached data, each time in a new process.

README.md beside this file says what the columns mean.
"""

import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import datasets
import torch
import transformers
import typer
from contenders import SIZES
from measuring import DTYPES, MIXED_PRECISION, begin, chosen, chosen_device, seconds, why_no_bf16
from rich.console import Console
from rich.table import Table
from start_probe import MARKS
from train_step import WARM_UP_STEPS, Contender, Work, resident_bytes

import hfgpt.training.saving
from hfgpt.data.blocks import TOKEN_FEATURES, TokenBlocks
from hfgpt.recipes.console import ProgressBar
from hfgpt.recipes.pretrain import LanguageModeling
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback, StepReport, TrainingRun
from hfgpt.training.reports import MetricsLog

PARTS = ["step", "checkpoint", "start"]
MODES = ["eager", "compiled"]
NUM_BLOCKS = 256  # random blocks to train on, of which an epoch is made

# The commands whose way to the first step is timed. A first, untimed run makes and encodes the built-in stories.
_WIDE = ["--model.hidden_size=768", "--model.num_hidden_layers=12", "--model.num_attention_heads=12"]
_NARROW = ["--model.hidden_size=32", "--model.num_hidden_layers=2", "--model.num_attention_heads=2"]
_READY = ["--config=demo", "--ngram_baselines=[]", "--sample_prompts=[]", "--max_eval_batches=1"]
STARTS = {
    "demo": ["--config=demo"],
    "124m": [*_READY, *_WIDE, "--model.vocab_size=50257", "--block_size=256", "--global_batch_size=2"],
    "tiny": [*_READY, *_NARROW],
}


# ----------------------------------------------------------------------------------------------------------------------
# What the engine trains
# ----------------------------------------------------------------------------------------------------------------------


class RandomText(LanguageModeling):
    """Language modelling as the recipe does it, on random tokens; judged on the one batch of the bare contender."""

    def __init__(self, work: Work, bare: Contender) -> None:
        generator = torch.Generator().manual_seed(2)
        tokens = torch.randint(work.size.vocabulary, (NUM_BLOCKS * work.tokens + 1,), generator=generator).numpy()
        rows = {"input_ids": [tokens], "num_bytes": [len(tokens)]}
        encoded = datasets.Dataset.from_dict(rows, features=TOKEN_FEATURES)
        self.train_examples = TokenBlocks(encoded, block_size=work.tokens)
        self.validation_examples = [  # type: ignore[assignment]
            {"input_ids": ids, "shift_labels": targets}
            for ids, targets in zip(bare.ids.cpu(), bare.targets.cpu(), strict=True)
        ]
        self.tokens_per_byte = 1.0
        self._fingerprint = {"data set": "random"}


def run_engine(
    work: Work, mode: str, num_steps: int, output_dir: Path, listeners: list[Callback], **options: Any
) -> TrainingRun:
    """Train a fresh model as the bare contenders are trained; the loss before the first step must be the bare one's."""
    torch.set_num_threads(work.threads)
    transformers.logging.disable_progress_bar()  # of saving weights
    bare = Contender("hfgpt:eager", work.build("hfgpt"), work)
    with torch.no_grad():
        expected_loss = float(bare.forward())
    task = RandomText(work, bare)
    model = bare.loss.model
    del bare
    save_model = options.pop("save_model", None)
    config = TrainingConfig(
        output_dir=str(output_dir),
        max_steps=num_steps,
        global_batch_size=work.batch,
        learning_rate=1e-5,
        mixed_precision=MIXED_PRECISION[work.dtype_name],
        torch_compile=mode == "compiled",
        logging_steps=1,
        **options,
    )
    run = train(
        task,
        model,
        config,
        start_accelerator(config),
        listeners,
        save_model=save_model and (lambda folder, weights: save_model(model, folder, weights)),
    )
    found = run.evaluations[0].metrics["loss"]
    if not math.isclose(found, expected_loss, rel_tol=1e-5 if work.dtype_name == "fp32" else 2e-3):
        raise RuntimeError(f"the engine begins with a loss of {found:.6f} and the bare step with {expected_loss:.6f}")
    return run


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns in a process of its own: with memory that nobody has used, and its own accelerator."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# ----------------------------------------------------------------------------------------------------------------------
# A step
# ----------------------------------------------------------------------------------------------------------------------


class SwitchedBar(ProgressBar):
    """The progress bar of the recipes, which can be left alone for a while."""

    on = False

    def on_log(self, run: TrainingRun, summary: dict[str, float | None]) -> None:
        if self.on:
            super().on_log(run, summary)


class TakeTurns(Callback):
    """Between turns of the engine, which are timed from one call of this, the last listener, to the next: bare steps.

    Every second turn of the engine has a progress bar. So a turn holds all that the loop does in a step.
    """

    def __init__(self, bare: Contender, bar: SwitchedBar, steps: int) -> None:
        self.bare, self.bar, self.steps = bare, bar, steps
        self.turns: list[tuple[str, float]] = []  # (who, seconds a step), in order

    def on_step(self, run: TrainingRun, report: StepReport) -> None:
        if report.step < WARM_UP_STEPS or (report.step - WARM_UP_STEPS) % self.steps:
            return
        if self.bare.work.device == "cuda":
            torch.cuda.synchronize()
        if report.step > WARM_UP_STEPS:
            elapsed = time.perf_counter() - self.began
            self.turns.append(("engine with bar" if self.bar.on else "engine", elapsed / self.steps))
            self.bar.on = not self.bar.on
        elapsed = seconds(lambda: [self.bare.step() for _ in range(self.steps)], self.bare.work.device)
        self.turns.append(("bare", elapsed / self.steps))
        self.began = time.perf_counter()


def measure_steps(work: Work, mode: str, rounds: int, steps: int) -> list[dict[str, Any]]:
    """A row for the bare step, the engine's without a bar, and with one."""
    torch.set_num_threads(work.threads)
    bare = Contender(f"hfgpt:{mode}", work.build("hfgpt"), work)
    for _ in range(WARM_UP_STEPS):
        bare.step()
    bar = SwitchedBar()
    turns = TakeTurns(bare, bar, steps)
    with tempfile.TemporaryDirectory() as folder:
        num_steps = WARM_UP_STEPS + 2 * rounds * steps
        run_engine(work, mode, num_steps, Path(folder), [MetricsLog(), bar, turns])
    bare_seconds = [elapsed for name, elapsed in turns.turns if name == "bare"]
    neighbours = [(before + after) / 2 for before, after in pairwise(bare_seconds)]
    engine_turns = [turn for turn in turns.turns if turn[0] != "bare"]
    rows = [{"contender": "bare", "seconds_per_step_of_each_turn": bare_seconds, "ratios": None}]
    for wanted in ("engine", "engine with bar"):
        pairs = [
            (elapsed, elapsed / bare_near)
            for (name, elapsed), bare_near in zip(engine_turns, neighbours, strict=True)
            if name == wanted
        ]
        rows.append(
            {
                "contender": wanted,
                "seconds_per_step_of_each_turn": [elapsed for elapsed, _ in pairs],
                "ratios": [ratio for _, ratio in pairs],
            }
        )
    for row in rows:
        row |= {"size": work.size_name, "dtype": work.dtype_name, "mode": mode}
        row["seconds_per_step"] = statistics.median(row["seconds_per_step_of_each_turn"])
        row["time_relative_to_bare"] = row["ratios"] and statistics.median(row["ratios"])
        row["quartiles"] = statistics.quantiles(row["ratios"], n=4)[::2] if rounds > 1 and row["ratios"] else None
    return rows


def table_of_steps(rows: list[dict[str, Any]], work: Work) -> Table:
    """All modes of one size and dtype."""
    table = Table(title=f"Step: {work.size_name}, {work.dtype_name}, {work.batch} x {work.tokens} tokens")
    for column in ("contender", "ms/step", "time / bare", "middle half"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for row in rows:
        ratio, quartiles = row["time_relative_to_bare"], row["quartiles"]
        table.add_row(
            f"{row['contender']}, {row['mode']}",
            f"{1000 * row['seconds_per_step']:.4g}",
            "1" if ratio is None else f"{ratio:.3f}",
            "-" if quartiles is None else "{:.3f} to {:.3f}".format(*quartiles),
        )
    return table


# ----------------------------------------------------------------------------------------------------------------------
# A checkpoint
# ----------------------------------------------------------------------------------------------------------------------


class WatchCheckpoints(Callback):
    """Notes when each step ended and each checkpoint was whole, and switches between background and foreground.

    A checkpoint's window are the `every` steps after its own, the pause at its own step's end included.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.ends: list[float] = []  # of each step, by the wall clock, which files are dated by
        self.peaks: list[int] = []  # resident memory of each window; the first is without a checkpoint
        self.whole: dict[int, tuple[float, int]] = {}  # step: (when, bytes)
        self.copying: list[float] = []

    def on_step(self, run: TrainingRun, report: StepReport) -> None:
        if run.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.time())
        if report.step == 1:
            reset_peak()
        if report.step % self.every == 0:
            self.peaks.append(resident_bytes("VmHWM"))
            reset_peak()
            run.config.save_in_background = (report.step // self.every) % 2 == 1

    def on_checkpoint(self, run: TrainingRun, folder: Path) -> None:
        sizes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.whole[int(folder.name.rpartition("-")[2])] = ((folder / "manifest.json").stat().st_mtime, sizes)

    def timed(self, take_state: Callable[..., Any]) -> Callable[..., Any]:
        """`take_state`, timed."""

        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            state = take_state(*arguments)
            self.copying.append(time.perf_counter() - began)
            return state

        return timed


def reset_peak() -> None:
    """VmHWM starts again from VmRSS; Linux."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def measure_checkpoints(work: Work, rounds: int, every: int, folder: str | None) -> list[dict[str, Any]]:
    """A row for writing in the background and one for the foreground."""
    watch = WatchCheckpoints(every)
    num_steps = (2 * rounds + 1) * every
    with (
        tempfile.TemporaryDirectory(dir=folder) as output_dir,
        mock.patch.object(hfgpt.training.saving, "take_state", watch.timed(hfgpt.training.saving.take_state)),
    ):
        run_engine(
            work,
            "eager",
            num_steps,
            Path(output_dir),
            [MetricsLog(), watch],
            save_model=lambda model, path, weights: model.save_pretrained(path, state_dict=weights),
            save_steps=every,
            keep_last=1,
            keep_best=0,
        )
    found: dict[str, list[dict[str, float]]] = {"background": [], "foreground": []}
    for number in range(1, 2 * rounds + 1):
        step = number * every
        began, (whole, size) = watch.ends[step - 1], watch.whole[step]
        ends = watch.ends[step - 1 : step + every]
        durations = [after - before for before, after in pairwise(ends)]
        touched = sum(end < whole for end in ends)  # steps that began before it was whole, the pause in the first
        if touched >= every - 1:
            raise RuntimeError(f"writing took {whole - began:.1f} s, {touched} steps of {every}: raise --every")
        quiet = statistics.median(durations[touched:])
        found["background" if number % 2 else "foreground"].append(
            {
                "step_seconds": quiet,
                "held_up_seconds": sum(durations[:touched]) - touched * quiet,
                "held_up_steps": sum(durations[:touched]) / quiet - touched,
                "copying_seconds": watch.copying[number - 1],
                "whole_after_seconds": whole - began,
                "bytes": size,
                "extra_peak_bytes": watch.peaks[number] - watch.peaks[0],
            }
        )
    return [
        {
            "size": work.size_name,
            "dtype": work.dtype_name,
            "writing": writing,
            "peak_without_bytes": watch.peaks[0],
            "each": windows,
            **{name: statistics.median(window[name] for window in windows) for name in windows[0]},
        }
        for writing, windows in found.items()
    ]


def table_of_checkpoints(rows: list[dict[str, Any]], work: Work) -> Table:
    """Both ways of writing at one size."""
    first = rows[0]
    table = Table(
        title=f"Checkpoint: {work.size_name}, {first['bytes'] / 1e6:,.0f} MB; a step takes "
        f"{first['step_seconds']:.3g} s and at its peak {first['peak_without_bytes'] / 2**20:,.0f} MiB"
    )
    for column in ("written in the", "holds up", "in steps", "of it copying", "whole after", "more memory"):
        table.add_column(column, justify="left" if column == "written in the" else "right")
    for row in rows:
        table.add_row(
            row["writing"],
            f"{row['held_up_seconds']:.3g} s",
            f"{row['held_up_steps']:.2f}",
            f"{row['copying_seconds']:.3g} s",
            f"{row['whole_after_seconds']:.3g} s",
            f"{row['extra_peak_bytes'] / 2**20:,.0f} MiB",
        )
    return table


# ----------------------------------------------------------------------------------------------------------------------
# The start
# ----------------------------------------------------------------------------------------------------------------------


def measure_start(name: str, rounds: int) -> dict[str, Any]:
    """Seconds from the command to each mark on the way to the first step, as start_probe.py takes them."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        options = list(STARTS[name])
        if name != "demo":  # which trains its tokenizer each time
            tokenizer = Path(folder) / "tokenizer"
            make = ["tokenizer", "train", "builtin:stories", "--vocab-size", "1024", "--out", str(tokenizer)]
            _run([sys.executable, "-m", "hfgpt.cli.main", *make])
            options.append(f"--tokenizer={tokenizer}")
        for number in range(rounds + 1):  # the first fills the caches
            times, output_dir = Path(folder) / f"{number}.json", Path(folder) / f"run-{number}"
            probe = str(Path(__file__).with_name("start_probe.py"))
            began = time.time()
            _run([sys.executable, probe, str(times), "pretrain", *options, f"--output_dir={output_dir}"])
            marks = json.loads(times.read_text(encoding="utf-8"))
            runs.append({mark: moment - began for mark, moment in marks.items()})
    timed = runs[1:]
    moments = [statistics.median(run[mark] for run in timed) for mark in MARKS]
    spent = {
        mark: statistics.median(run[mark] - (run[before] if before else 0) for run in timed)
        for before, mark in zip([None, *MARKS], MARKS, strict=False)
    }
    return {"command": name, "options": STARTS[name], "seconds": moments[-1], "spent": spent, "each": timed}


def _run(command: list[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr[-2000:]}")


def table_of_starts(rows: list[dict[str, Any]]) -> Table:
    """All commands."""
    table = Table(title="From the command to the first step (seconds)")
    for column in ("hfgpt pretrain", "all", *MARKS):
        table.add_column(column, justify="left" if column == "hfgpt pretrain" else "right")
    for row in rows:
        table.add_row(
            row["command"],
            f"{row['seconds']:.2f}",
            *(f"{part:.2f}" for part in row["spent"].values()),
        )
    return table


# ----------------------------------------------------------------------------------------------------------------------
# The command
# ----------------------------------------------------------------------------------------------------------------------


def works(size_names: list[str], dtype_names: list[str], device: str, console: Console) -> Iterator[Work]:
    """What to train, for all sizes and dtypes that the device computes in."""
    for size_name in size_names:
        for dtype_name in dtype_names:
            if dtype_name == "bf16" and (reason := why_no_bf16(device)):
                console.print(f"{size_name}, bf16: left out, since {reason}")
                continue
            batch, tokens = SIZES[size_name].cpu_batch if device == "cpu" else SIZES[size_name].accelerator_batch
            yield Work(size_name, dtype_name, device, batch, tokens, torch.get_num_threads())


def main(
    parts: Annotated[str, typer.Option(help="Comma-separated: step, checkpoint, start.")] = ",".join(PARTS),
    sizes: Annotated[str, typer.Option(help="Comma-separated: 30m, 124m (tiny tries out the script).")] = "30m,124m",
    dtypes: Annotated[str, typer.Option(help="Comma-separated: fp32, bf16. For checkpoints, fp32.")] = "fp32,bf16",
    modes: Annotated[str, typer.Option(help="Comma-separated: eager, compiled.")] = ",".join(MODES),
    rounds: Annotated[int, typer.Option(min=1, help="Turns of the engine with and without a bar.")] = 10,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in a turn. Default: 1 on CPU, 10 on CUDA.")] = None,
    checkpoint_rounds: Annotated[int, typer.Option(min=1, help="Checkpoints of either kind.")] = 3,
    every: Annotated[int, typer.Option(min=4, help="Steps from one checkpoint to the next.")] = 16,
    folder: Annotated[str | None, typer.Option(help="Where checkpoints go. Default: the temporary folder.")] = None,
    starts: Annotated[str, typer.Option(help="Comma-separated: demo, 124m (tiny tries out the script).")] = "demo,124m",
    start_rounds: Annotated[int, typer.Option(min=1, help="Starts of each command.")] = 5,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 for torch's own choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda. Default: cuda where there is one.")] = "",
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")] = None,
) -> None:
    """Time the training engine: its step, its checkpoints, its start."""
    console = Console()
    device = chosen_device(device)
    asked_for = chosen(parts, PARTS, "--parts")
    mode_names = chosen(modes, MODES, "--modes")
    start_names = chosen(starts, list(STARTS), "--starts")
    size_names, dtype_names = chosen(sizes, list(SIZES), "--sizes"), chosen(dtypes, list(DTYPES), "--dtypes")
    environment = begin(console, device, threads)
    results: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    all_works = list(works(size_names, dtype_names, device, console))
    for work in all_works if "step" in asked_for else []:
        num_steps = steps or (1 if device == "cpu" else 10)
        rows = [row for mode in mode_names for row in in_new_process(measure_steps, work, mode, rounds, num_steps)]
        console.print(table_of_steps(rows, work))
        results["step"] += rows
    in_fp32 = {work.size_name: replace(work, dtype_name="fp32") for work in all_works}
    for work in in_fp32.values() if "checkpoint" in asked_for else []:
        rows = in_new_process(measure_checkpoints, work, checkpoint_rounds, every, folder)
        console.print(table_of_checkpoints(rows, work))
        results["checkpoint"] += rows
    if "start" in asked_for:
        results["start"] = [measure_start(name, start_rounds) for name in start_names]
        console.print(table_of_starts(results["start"]))
    console.print("load at the end: " + ", ".join(f"{load:.1f}" for load in os.getloadavg()))
    if json_path:
        settings = {"rounds": rounds, "sizes": {name: asdict(size) for name, size in SIZES.items()}}
        report = {"environment": environment, "settings": settings, "results": results}
        json_path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
