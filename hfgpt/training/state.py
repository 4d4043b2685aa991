"""All that a run is besides its weights, taken down and put back: bit for bit, or refused with the reason.

A checkpoint is a folder that `from_pretrained` opens, with a folder `training_state/` in it:

    optimizer.pt        the optimizer's state, and that of the loss scaler in fp16
    random_states.pt    Python's, NumPy's and torch's generators of every process
    run.json            steps, targets, evaluations, order of data, what callbacks and meters know, fingerprints
"""

import dataclasses
import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from hfgpt.errors import UserError

from .config import TrainingConfig
from .events import Callback, Evaluation, TrainingRun
from .task import Task

__all__ = ["RunState", "refuse_another_run", "restore", "run_fingerprint", "shape_fingerprint", "take_state"]

FOLDER = "training_state"
FORMAT_VERSION = 1

# Fields of the configuration whose change makes another order of examples out of the run.
ORDER_FIELDS = ("seed", "global_batch_size")

# Fields that are about this start of the command, not about the run.
START_FIELDS = ("output_dir", "overwrite_output_dir", "resume")


@dataclasses.dataclass
class RunState:
    """A copy of a run at one step, which training can no longer change."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    random_states: list[dict[str, Any]]
    progress: str
    """What `run.json` holds; as text already, for what it is made from is changed by the next step."""

    def write(self, folder: Path) -> None:
        """Write everything but the weights to `folder / "training_state"`."""
        folder = folder / FOLDER
        folder.mkdir(parents=True)
        for name, content in (("optimizer.pt", self.optimizer), ("random_states.pt", self.random_states)):
            with (folder / name).open("wb") as file:  # given a path, torch would lose the reason of a failure
                torch.save(content, file)
        (folder / "run.json").write_text(self.progress + "\n", encoding="utf-8")


def take_state(run: TrainingRun, callbacks: Sequence[Callback], stream_state: dict[str, Any] | None) -> RunState | None:
    """The run as it stands; called on every process, None on all but the first.

    Args:
        stream_state: Where the stream of examples stands, of all processes together; None if there is none.
    """
    random_states = gather_object([_random_state(run.accelerator.device)])
    if not run.is_main_process:
        return None
    optimizer: dict[str, Any] = {"optimizer": run.optimizer.state_dict()}
    if run.accelerator.scaler is not None:
        optimizer["scaler"] = run.accelerator.scaler.state_dict()
    progress = {
        "format_version": FORMAT_VERSION,
        "step": run.step,
        "num_targets": run.num_targets,
        "num_processes": run.accelerator.num_processes,
        "evaluations": [dataclasses.asdict(evaluation) for evaluation in run.evaluations],
        "health": run.health.state_dict(),
        "meter": run.meter.state_dict(),
        "memory": dataclasses.asdict(run.memory),
        "stream": stream_state,
        "callbacks": {name: callback.state_dict() for name, callback in _named(callbacks).items()},
        "fingerprint": run.fingerprint,
        "config": dataclasses.asdict(run.config),
    }
    weights = _copy(run.model.state_dict(), {})
    return RunState(run.step, weights, _copy(optimizer, {}), random_states, json.dumps(progress, indent=1))


def _named(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """Each listener by its class, and by its number among those of its class where there are more."""
    named: dict[str, Callback] = {}
    seen: Counter[str] = Counter()
    for callback in callbacks:
        kind = type(callback).__name__
        seen[kind] += 1
        named[kind if seen[kind] == 1 else f"{kind}-{seen[kind]}"] = callback
    return named


def _copy(value: Any, copies: dict[tuple, Tensor]) -> Any:
    """`value` with its tensors copied to the CPU; what shares memory, as tied weights do, shares it there, too."""
    if isinstance(value, Tensor):
        place = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if place not in copies or value.numel() == 0:
            copies[place] = value.detach().to("cpu", copy=True)
        return copies[place]
    if isinstance(value, dict):
        return {key: _copy(item, copies) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item, copies) for item in value)
    return value


def _random_state(device: torch.device) -> dict[str, Any]:
    """Of every generator that a training step may draw from, in types that `torch.load(weights_only=True)` takes.

    That of the GPU, or of what else trains, stands under its type ("cuda").
    """
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (the global one is what libraries draw from)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu" and hasattr(torch, device.type):  # XLA's is none of torch
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type])


def restore(run: TrainingRun, checkpoint: Path, callbacks: Sequence[Callback]) -> dict[str, Any] | None:
    """Put a run back to where `checkpoint` was taken; its model must hold that checkpoint's weights already.

    Returns:
        The state of the stream of examples, of all processes together; None if there is none.

    Raises:
        UserError: If the checkpoint belongs to another data set, tokenizer, model shape or order of examples.
    """
    progress = refuse_another_run(checkpoint, run.fingerprint, run.config)
    for line in _changed_fields(progress["config"], dataclasses.asdict(run.config)):
        run.accelerator.print(line)
    folder = checkpoint / FOLDER
    optimizer = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    _load_optimizer(run.optimizer, optimizer["optimizer"])
    if run.accelerator.scaler is not None and "scaler" in optimizer:
        run.accelerator.scaler.load_state_dict(optimizer["scaler"])
    if progress["step"] > run.num_steps:
        raise UserError(
            f"{checkpoint} is at step {progress['step']}, and the run is to end at step {run.num_steps}: raise "
            "max_steps or num_train_epochs, or resume from an earlier checkpoint."
        )
    run.step, run.num_targets = progress["step"], progress["num_targets"]
    run.evaluations[:] = [Evaluation(**evaluation) for evaluation in progress["evaluations"]]
    run.health.load_state_dict(progress["health"])
    run.meter.load_state_dict(progress["meter"])
    run.memory = type(run.memory)(**progress["memory"])
    for name, callback in _named(callbacks).items():
        if name in progress["callbacks"]:
            callback.load_state_dict(run, progress["callbacks"][name])
    _restore_random_states(folder, run.accelerator)
    return progress["stream"]


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what the optimizer has learned, and not its settings, which the configuration gives."""
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def refuse_another_run(checkpoint: Path, fingerprint: Mapping[str, str], config: TrainingConfig) -> dict[str, Any]:
    """Read what a checkpoint knows of its run, which must be the one that is to go on; nothing is changed.

    Args:
        fingerprint: Of data, tokenizer and model shape, as they are now.

    Returns:
        The contents of `run.json`.

    Raises:
        UserError: If the checkpoint belongs to another data set, tokenizer, model shape, order of examples or
            optimizer, or holds no state of a run that this version can read.
    """
    try:
        progress: dict[str, Any] = json.loads((checkpoint / FOLDER / "run.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{checkpoint} cannot be resumed from, because it holds no training_state: give the folder of a "
            "checkpoint, or begin a new run from its weights with --init_from."
        ) from error
    if progress["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{checkpoint} was written in format {progress['format_version']} and this version reads {FORMAT_VERSION}: "
            "begin a new run from its weights with --init_from."
        )
    for what, now in fingerprint.items():
        if progress["fingerprint"].get(what) != now:
            raise UserError(
                f"{checkpoint} was trained with another {what} (fingerprint {progress['fingerprint'].get(what)}, now "
                f"{now}), so the run cannot go on as if it had never ended: give what it was trained with, or begin a "
                "new run from its weights with --init_from."
            )
    for name in ORDER_FIELDS:
        if progress["config"][name] != getattr(config, name):
            raise UserError(
                f"{checkpoint} was trained with {name} = {progress['config'][name]}, and now it is "
                f"{getattr(config, name)}, which gives other batches: keep it, or begin a new run from its weights "
                "with --init_from."
            )
    if (optimizer := progress["config"].get("optimizer", "adamw")) != config.optimizer:
        raise UserError(
            f"{checkpoint} was trained with optimizer = {optimizer}, and its state says nothing to {config.optimizer}: "
            "keep it, or begin a new run from its weights with --init_from."
        )
    _refuse_another_model(checkpoint, progress["config"].get("model") or {}, getattr(config, "model", {}))
    return progress


def _refuse_another_model(checkpoint: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Fields such as `hidden_act` change no shape and all numbers; dropout may change, and that is said."""
    missing = object()
    changed = [name for name in {**before, **now} if before.get(name, missing) != now.get(name, missing)]
    for name in changed:
        if not name.endswith("_dropout"):
            raise UserError(
                f"{checkpoint} was trained with model.{name} = {before.get(name, 'its default')}, and now it is "
                f"{now.get(name, 'left out')}: keep it, or begin a new run."
            )


def _changed_fields(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line that names the fields with which the run goes on otherwise than it began; none if there are none."""
    now = json.loads(json.dumps(now))  # as `before` was: tuples are lists there
    changed = [name for name in now if name not in START_FIELDS and before.get(name) != now[name]]
    if not changed:
        return []
    return [
        "changed since the checkpoint: " + ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in changed)
    ]


def _restore_random_states(folder: Path, accelerator: Accelerator) -> None:
    states = torch.load(folder / "random_states.pt", weights_only=True)
    if len(states) == accelerator.num_processes:
        _set_random_state(states[accelerator.process_index], accelerator.device)
    if len(states) != accelerator.num_processes:
        change = f"Saved by {len(states)} processes and resumed on {accelerator.num_processes}"
    elif (saved_on := next(iter(states[0].keys() - {"python", "numpy", "torch"}), "cpu")) != accelerator.device.type:
        change = f"Saved on {saved_on} and resumed on {accelerator.device.type}"
    else:
        return
    accelerator.print(f"{change}: the batches are the same, but dropout draws other masks.")


def run_fingerprint(task: Task, model: nn.Module) -> dict[str, str]:
    """What a checkpoint must have in common with the run that is to go on from it."""
    return task.fingerprint() | {"model shape": shape_fingerprint(model)}


def shape_fingerprint(model: nn.Module) -> str:
    """A hash of the names, shapes and types of all parameters."""
    shapes = [(name, tuple(weight.shape), str(weight.dtype)) for name, weight in model.named_parameters()]
    return hashlib.sha256(repr(shapes).encode()).hexdigest()[:16]
