"""The folder of a run: what stands in it, and that nothing half-written does.

config.yaml       every field of the run's configuration
metrics.jsonl     a line each log step and each evaluation
samples.jsonl     text written at each evaluation
loss_curve.png    the picture of metrics.jsonl
results.json      last evaluation, baselines, sizes, time
final/            weights, code, tokenizer, generation defaults and the configuration: opens with from_pretrained
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfgpt.errors import UserError
from hfgpt.training.config import TrainingConfig

__all__ = ["FINAL", "check_run_folder", "prepare_run_folder", "save_final", "write_results"]

FINAL = "final"


def check_run_folder(config: TrainingConfig) -> Path:
    """The run's folder, which may be written to as far as can be seen; writes nothing, so it can be called first.

    Raises:
        UserError: If a run stands there and may not be replaced, or the path is no folder.
    """
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir {folder} is a file: name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not config.overwrite_output_dir:
        raise UserError(
            f"output_dir {folder} is not empty: name another folder, or replace the run in it with "
            "--overwrite_output_dir true."
        )
    return folder


def prepare_run_folder(config: TrainingConfig, accelerator: Accelerator) -> Path:
    """Create the run's folder and write its configuration: when all else is known to be right.

    Raises:
        UserError: As `check_run_folder`, or if the folder cannot be created.
    """
    folder = check_run_folder(config)
    accelerator.wait_for_everyone()  # every process has looked before one writes
    if accelerator.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output_dir {folder} cannot be created: {error.strerror}.") from error
        for outdated in ("results.json", "loss_curve.png"):  # final/ stays until another is whole
            (folder / outdated).unlink(missing_ok=True)
        write_config(config, folder / "config.yaml")
    accelerator.wait_for_everyone()
    return folder


def write_config(config: TrainingConfig, path: Path) -> None:
    """Write every field, so that `--config` with this file repeats the run."""
    path.write_text(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def save_final(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: TrainingConfig
) -> Path:
    """Write `final/` under another name and rename it when it is whole, so that a failure leaves the old one."""
    final, unfinished, replaced = folder / FINAL, folder / f".{FINAL}.unfinished", folder / f".{FINAL}.replaced"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        write_config(config, unfinished / "run_config.yaml")
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.replace(replaced)
    unfinished.replace(final)
    shutil.rmtree(replaced, ignore_errors=True)
    return final


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write `results.json`, for programs that compare runs."""
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
