"""The folder of a run: what stands in it, and that nothing half-written does.

config.yaml       every field of the run's configuration
metrics.jsonl     a line each log step and each evaluation
samples.jsonl     text written at each evaluation
loss_curve.png    the picture of metrics.jsonl
results.json      last evaluation, baselines, sizes, time
card_facts.json   what the model's card says, for programs
checkpoint-N/     the model after N steps, and what a run needs to go on from there
final/            weights, code, tokenizer, generation defaults and the configuration: opens with from_pretrained;
                  beside them the model's card, its facts and its pictures
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hfgpt.errors import UserError
from hfgpt.hub.facts_file import CARD_FACTS
from hfgpt.training.checkpoints import MANIFEST, CheckpointStore, verify
from hfgpt.training.config import TrainingConfig
from hfgpt.training.disk import replace_text
from hfgpt.training.processes import on_main_process, wait_for_everyone
from hfgpt.training.run_lock import LOCK, exclusive

__all__ = [
    "FINAL",
    "check_run_folder",
    "find_checkpoint",
    "open_run_folder",
    "save_final",
    "save_model",
    "write_results",
]

FINAL = "final"


def check_run_folder(config: TrainingConfig) -> Path:
    """The run's folder, which may be written to as far as can be seen; writes nothing, so it can be called first.

    Raises:
        UserError: If a run stands there and may not be replaced, or the path is no folder.
    """
    folder = Path(config.output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir {folder} is a file: name a folder.")
    in_use = folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())
    if in_use and not config.overwrite_output_dir and config.resume == "never":
        raise UserError(
            f"output_dir {folder} is not empty: name another folder, go on with the run in it with --resume auto, or "
            "replace it with --overwrite_output_dir true."
        )
    if in_use and config.resume != "never" and not (folder / "config.yaml").is_file():
        raise UserError(f"output_dir {folder} is not empty, but holds no run to go on with: name another folder.")
    if in_use and config.resume not in ("never", "auto"):
        origin = Path(config.resume).expanduser().resolve().parent
        if origin != folder.resolve():
            raise UserError(
                f"output_dir {folder} holds a run, and resume is to go on with another one, that of {origin}: name "
                "that folder or a new one."
            )
    return folder


def find_checkpoint(config: TrainingConfig, accelerator: Accelerator) -> Path | None:
    """The checkpoint to resume from, the same on every process; None to begin at the first step.

    Raises:
        UserError: If the one that is asked for by its path is not there or not whole, or none of the run's is whole.
    """

    def find() -> Path | None:
        if config.resume == "auto":
            store = CheckpointStore(Path(config.output_dir))
            newest = store.newest()
            if newest is None and store.steps():  # beginning anew would delete what could perhaps be mended
                raise UserError(
                    f"No checkpoint in {config.output_dir} is whole, so there is nothing to go on from: begin again "
                    "with --overwrite_output_dir true, or name another folder."
                )
            if newest is None and (store.folder / FINAL).exists():
                raise UserError(
                    f"{config.output_dir} holds a finished run without checkpoints, so there is nothing to go on from: "
                    "begin again with --overwrite_output_dir true, or name another folder."
                )
            return newest
        checkpoint = Path(config.resume).expanduser()
        if not checkpoint.is_dir():
            raise UserError(f"resume: there is no folder {checkpoint}; give that of a checkpoint, auto or never.")
        if not (checkpoint / MANIFEST).is_file():
            raise UserError(
                f"resume: {checkpoint} is no checkpoint that was written to its end, for it has no {MANIFEST}: give "
                "the folder of a checkpoint, or begin a new run from a finished model's weights with --init_from."
            )
        verify(checkpoint)
        return checkpoint

    return None if config.resume == "never" else on_main_process(accelerator, find)


@contextmanager
def open_run_folder(
    config: TrainingConfig, accelerator: Accelerator, resume_from: Path | None
) -> Iterator[tuple[Path, Path | None]]:
    """Create the run's folder and write its configuration, when all else is known to be right; hold it for this run.

    Args:
        resume_from: The checkpoint from which the run in it goes on, so that its numbers, pictures and checkpoints
            stay; None if it begins.

    Returns:
        The folder, and the checkpoint, which may have another name when the folder has been put in order.

    Raises:
        UserError: As `check_run_folder`, if the folder cannot be created, or if another run writes to it, or has done
            so since `find_checkpoint` looked.
    """
    folder = check_run_folder(config)
    wait_for_everyone(accelerator)  # every process has looked before one writes

    def prepare() -> Path | None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output_dir {folder} cannot be created: {error.strerror}.") from error
        expected = _manifest(resume_from)
        held.enter_context(exclusive(folder))
        store = CheckpointStore(folder)
        store.clean()
        checkpoint = store.newest(quiet=True) if config.resume == "auto" else resume_from
        if _manifest(checkpoint) != expected or (expected is None and resume_from is not None):
            raise UserError(f"Another run has written to {folder} while this one was being prepared: start it again.")
        if checkpoint is None:
            for outdated in ("results.json", "loss_curve.png", CARD_FACTS):  # final/ stays until another is whole
                (folder / outdated).unlink(missing_ok=True)
            store.delete_all()
        elif checkpoint.resolve().parent == folder.resolve():
            _set_aside_later(store, folder, checkpoint)
        write_config(config, folder / "config.yaml")
        return checkpoint

    with ExitStack() as held:
        yield folder, on_main_process(accelerator, prepare)


def _manifest(checkpoint: Path | None) -> bytes | None:
    """What tells a checkpoint from all others; None if there is none."""
    path = None if checkpoint is None else checkpoint / MANIFEST
    return path.read_bytes() if path is not None and path.is_file() else None


def _set_aside_later(store: CheckpointStore, folder: Path, resume_from: Path) -> None:
    """A run that goes back to an older checkpoint leaves those that its former way led to, which are kept aside.

    Of two ways that were left, the later one's checkpoint of a step takes the place of the earlier one's.
    """
    step = json.loads((resume_from / MANIFEST).read_text(encoding="utf-8"))["step"]  # the folder may have been renamed
    later = [number for number in store.steps() if number > step]
    for number in later:
        aside = folder / f"superseded-checkpoint-{number}"
        if aside.exists():
            shutil.rmtree(aside)
        (folder / f"checkpoint-{number}").rename(aside)
    if later:
        print(f"set aside as superseded-checkpoint-N: {len(later)} checkpoints later than step {step}")


def write_config(config: TrainingConfig, path: Path) -> None:
    """Write every field, so that `--config` with this file repeats the run."""
    replace_text(path, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True))


def save_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainingConfig,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write a model, its tokenizer and its run's configuration, so that `from_pretrained` opens the folder.

    Args:
        weights: A copy of the model's weights, which may be older than those that it holds now. Default: its own.
    """
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    write_config(config, folder / "run_config.yaml")


def save_final(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainingConfig,
    weights: dict[str, Tensor] | None = None,
) -> Path:
    """Write `final/` under another name and rename it when it is whole, so that a failure leaves the old one.

    Args:
        weights: What is saved in place of the model's own weights.
    """
    final, unfinished, replaced = folder / FINAL, folder / f".{FINAL}.unfinished", folder / f".{FINAL}.replaced"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        save_model(unfinished, model, tokenizer, config, weights)
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
    replace_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
