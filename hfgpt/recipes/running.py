"""What all recipes do around the engine: the run's folder, what is said and drawn, how it ends."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

from hfgpt.errors import exit_on_user_error
from hfgpt.training.config import TrainingConfig
from hfgpt.training.disk import full_disk_is_said
from hfgpt.training.engine import train
from hfgpt.training.events import Callback, TrainingRun
from hfgpt.training.processes import wait_for_everyone
from hfgpt.training.reports import MetricsLog
from hfgpt.training.saving import SaveModel
from hfgpt.training.state import refuse_another_run, run_fingerprint
from hfgpt.training.task import Task

from .configuration import parse_config
from .console import ProgressBar
from .hub_push import HubPush
from .run_folder import open_run_folder
from .weight_bars import hide_weight_bars

__all__ = ["run_command", "train_in_folder"]

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)


def run_command(
    recipe: str,
    config_class: type[ConfigT],
    description: str,
    run_recipe: Callable[[ConfigT], TrainingRun],
    arguments: Sequence[str] | None,
) -> None:
    """Run a recipe from the command line.

    A user's mistake ends it with one sentence and status 2, a signal with 128 + its number after a checkpoint.

    Args:
        recipe: The folder of its configurations.
        description: What `--help` says first.
        arguments: Default: those of this process.
    """
    hide_weight_bars()
    with exit_on_user_error():
        run = run_recipe(
            parse_config(recipe, config_class, description, sys.argv[1:] if arguments is None else arguments)
        )
    if run.stop_reason is not None and run.stop_reason.interrupted:
        sys.exit(run.stop_reason.exit_code)


def train_in_folder(
    task: Task,
    model: nn.Module,
    config: TrainingConfig,
    accelerator: Accelerator,
    *,
    resume_from: Path | None,
    lines: Sequence[str],
    callbacks: Sequence[Callback],
    save_model: SaveModel,
    begin: Callable[[], None] = lambda: None,
    finish: Callable[[TrainingRun, Path], None],
) -> TrainingRun:
    """Train in the run's folder, which is opened when all else is known to be right.

    Args:
        lines: What the first process says before training.
        callbacks: Listeners besides the log of metrics and the progress bar.
        begin: Called on every process when the folder is this run's, before the first step.
        finish: Called on every process when the run has come to its end; not when it was cut off from outside.

    Raises:
        UserError: If the folder is another run's, or as `hfgpt.training.engine.train`; or if the finished model cannot
            be pushed where it was to be.
        OutageError: If it cannot because the Hub or the network fails.
    """
    if resume_from is not None:  # before anything in the run's folder is touched
        refuse_another_run(resume_from, run_fingerprint(task, model), config)
    with (
        full_disk_is_said(Path(config.output_dir)),
        open_run_folder(config, accelerator, resume_from) as (folder, resume_from),
        HubPush(config) as hub_push,
    ):
        for line in [*lines, *([] if resume_from is None else [f"resumed from {resume_from}"])]:
            accelerator.print(line)
        begin()
        set_seed((config.seed + accelerator.process_index) % 2**32)  # each process draws a dropout of its own
        bar = ProgressBar()
        try:
            run = train(
                task,
                model,
                config,
                accelerator,
                [MetricsLog(), bar, *callbacks, hub_push],
                save_model=save_model,
                resume_from=resume_from,
            )
        finally:
            bar.close()
        if run.stop_reason is not None:
            accelerator.print(f"Stopped at step {run.step} of {run.num_steps}: {run.stop_reason.text}.")
        if run.stop_reason is not None and run.stop_reason.interrupted:
            accelerator.print(
                f"Go on with the same command and --resume auto; the last checkpoint: checkpoint-{run.step}"
            )
        else:
            finish(run, folder)
        wait_for_everyone(accelerator)
        if accelerator.is_main_process and (run.stop_reason is None or not run.stop_reason.interrupted):
            hub_push.push_final(folder)  # the others need not wait for it
    accelerator.end_training()
    return run
