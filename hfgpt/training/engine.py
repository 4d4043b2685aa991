"""The training loop of every recipe, to be read beside the book's `train_model_simple` (section 5.2).

For each step: take the global batch, add up the gradients of its parts, clip, set the learning rate, step. The loss is
the sum over all targets of the global batch, on all devices, divided by their number: a run is the same however the
batch is split. Everything else (progress bar, logs, pictures, samples) listens to events.
"""

import functools
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object, is_torch_xla_available, send_to_device
from torch import Tensor, nn

from hfgpt.errors import UserError

from .batches import TrainingBatches, evaluation_batches, micro_batch_size, num_training_steps
from .config import TrainingConfig
from .events import Callback, Evaluation, StepReport, TrainingRun
from .health import first_not_finite, write_diagnosis
from .launch import LONGEST_WAIT, check_num_processes, meet_anew, number_format, refuse_sharding
from .memory import MicroBatching, accumulate, in_parts
from .meter import Meter
from .optimization import build_optimizer, learning_rate_at
from .processes import leave_group_at_exit, wait_for_everyone
from .saving import CheckpointSaver, SaveModel
from .state import restore, run_fingerprint
from .stopping import StopWatch
from .task import Batch, Task

__all__ = ["evaluate", "start_accelerator", "train"]

logger = logging.getLogger(__name__)


def start_accelerator(config: TrainingConfig) -> Accelerator:
    """The devices of this launch, in the number format that the configuration asks for or the device allows.

    Raises:
        UserError: If fewer processes train together than the launch was asked for, or the model is to be sharded; if
            the device has not the number format; or if the processes cannot share the global batch evenly.
    """
    refuse_sharding()
    meet_anew()
    precision = number_format(config.mixed_precision)
    # Where there is nothing else, torchrun's processes are joined on the CPU; accelerate would train each by itself.
    cpu = not torch.accelerator.is_available() and not is_torch_xla_available()
    patience = InitProcessGroupKwargs(timeout=LONGEST_WAIT)
    try:
        accelerator = Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=[patience])
    except ValueError as error:  # no such format on this device, or another one is in use in this Python process
        raise UserError(f"mixed_precision {precision!r} cannot be used here: {' '.join(str(error).split())}") from error
    leave_group_at_exit()
    check_num_processes(accelerator.num_processes)
    if precision == "fp16" and accelerator.device.type == "cpu":  # accelerate would train in fp32 without a word
        raise UserError("mixed_precision 'fp16' cannot be used here: a CPU needs 'bf16' or 'no'.")
    micro_batch_size(config, accelerator.num_processes)  # known now, and not only when the first batch is cut
    return accelerator


def train(
    task: Task,
    model: nn.Module,
    config: TrainingConfig,
    accelerator: Accelerator,
    callbacks: Sequence[Callback] = (),
    *,
    save_model: SaveModel | None = None,
    resume_from: Path | None = None,
) -> TrainingRun:
    """Train `model` on `task` and return the state of the run, which is finished or says its `stop_reason`.

    Args:
        save_model: Writes the model, and what belongs to it, to the folder of a checkpoint. Default: no checkpoints.
        resume_from: The checkpoint to go on from; `model` holds its weights.

    Raises:
        UserError: If the configuration does not fit the number of processes or the data, if the checkpoint is of
            another run, if the loss stays infinite, or if memory does not hold one example.
    """
    run, compute_loss, batches = _prepare(task, model, config, accelerator, callbacks, resume_from)
    with StopWatch(config) as watch, CheckpointSaver(run, callbacks, save_model, batches) as saver:
        tell(callbacks, "on_train_begin", run)
        _evaluate_if_due(run, task, callbacks)
        model.train()
        run.stop_reason = watch.reached(run)  # by a run that was resumed at its end
        started = time.perf_counter()
        for micro_batches in batches if run.stop_reason is None else ():
            learning_rate = learning_rate_at(run.step, run.num_steps, config)
            for group in run.optimizer.param_groups:
                group["lr"] = learning_rate
            num_targets = accelerator.reduce(_count_targets(task, micro_batches, accelerator.device), reduction="sum")
            share = _accumulate_gradients(run, compute_loss, micro_batches, num_targets)
            norm = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm or float("inf"))
            loss, grad_norm, not_saved, *flags = _agree(accelerator, share, norm, saver.has_failed(), *watch.flags())
            good = run.health.is_good(run.step + 1, loss, grad_norm)
            if good:
                run.optimizer.step()
            elif _is_hopeless(run, loss):
                _give_up(run, task, micro_batches, batches, save_model)
            run.optimizer.zero_grad(set_to_none=True)

            run.step += 1
            run.num_targets += int(num_targets)
            seconds, started = time.perf_counter() - started, time.perf_counter()
            report = StepReport(run.step, loss, learning_rate, grad_norm, int(num_targets), seconds, skipped=not good)
            run.meter.add(report)
            tell(callbacks, "on_step", run, report)
            if run.step == run.num_steps or run.step % config.logging_steps == 0:
                tell(callbacks, "on_log", run, run.meter.summary())
            run.stop_reason = watch.reason(flags, run)
            if run.stop_reason is None or not run.stop_reason.interrupted:
                _evaluate_if_due(run, task, callbacks)
                run.stop_reason = run.stop_reason or watch.reason(flags, run)
            saver.save_if_due(failed_somewhere=not_saved > 0)
            if run.stop_reason is not None:
                break
            started = time.perf_counter() if run.evaluations[-1].step == run.step else started
    tell(callbacks, "on_train_end", run)
    return run


def _prepare(
    task: Task,
    model: nn.Module,
    config: TrainingConfig,
    accelerator: Accelerator,
    callbacks: Sequence[Callback],
    resume_from: Path | None,
) -> tuple[TrainingRun, nn.Module, TrainingBatches]:
    """The run at its first step or where its checkpoint was taken; the wrapped loss; the batches still to come."""
    num_steps = num_training_steps(task.train_examples, config)
    _say_if_keep_best_sees_little(config, accelerator)
    if config.warmup_steps >= num_steps and accelerator.is_main_process:
        logger.warning(
            "The learning rate never reaches its peak: %d steps, warmup_steps %d.", num_steps, config.warmup_steps
        )
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()  # type: ignore[operator]
    model.to(accelerator.device)
    optimizer = build_optimizer(model, config)
    compute_loss: nn.Module = LossModule(task, model)
    if config.torch_compile:
        compute_loss = torch.compile(compute_loss)  # type: ignore[assignment]
    compute_loss, optimizer = accelerator.prepare(compute_loss, optimizer)
    fingerprint = run_fingerprint(task, model)
    run = TrainingRun(config, model, optimizer, accelerator, num_steps, Meter(task.unit), fingerprint)
    stream_state = None if resume_from is None else restore(run, resume_from, callbacks)
    return run, compute_loss, TrainingBatches(task, config, num_steps, accelerator, run.step, stream_state)


def _say_if_keep_best_sees_little(config: TrainingConfig, accelerator: Accelerator) -> None:
    """A checkpoint has a validation loss only where its step was evaluated, too."""
    save, evaluate_every = config.save_steps, config.eval_steps
    if config.keep_best and save and (evaluate_every is None or save % evaluate_every):
        which = "the last one" if evaluate_every is None else f"those of every {math.lcm(save, evaluate_every)} steps"
        if accelerator.is_main_process:
            logger.warning(
                "keep_best compares %s only, for other checkpoints are not evaluated: make save_steps a multiple of "
                "eval_steps.",
                which,
            )


class LossModule(nn.Module):
    """The task's loss as a module, which is what is compiled and distributed.

    It gives back a number. Of the model itself, logits would come back, too, which nobody reads: a compiled graph would
    write them to memory, and accelerate would copy them to fp32, for 6 to 11% of a step on a CPU.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        return self.task.loss(self.model, batch, num_items_in_batch)


def tell(callbacks: Sequence[Callback], event: str, *details: Any) -> None:
    """Call one method of every listener."""
    for callback in callbacks:
        getattr(callback, event)(*details)


def _count_targets(task: Task, micro_batches: Sequence[Batch], device: torch.device) -> Tensor:
    """Targets in this process's part of the global batch, as a tensor on the device: nothing waits for it."""
    return torch.tensor(sum(task.count_targets(batch) for batch in micro_batches), device=device)


def _accumulate_gradients(
    run: TrainingRun, compute_loss: nn.Module, micro_batches: Sequence[Batch], num_targets: Tensor
) -> Tensor:
    """Add up the gradients of the global batch's mean loss, which is the mean of what the processes return."""
    # Distribution averages gradients over the processes where the sum is wanted: so each divides by its share of N.
    num_items_in_batch = num_targets / run.accelerator.num_processes

    def backward(batch: Batch) -> Tensor:
        loss = compute_loss(send_to_device(batch, run.accelerator.device), num_items_in_batch)
        run.accelerator.backward(loss)
        return loss.detach()

    return accumulate(run.step, run.memory, micro_batches, compute_loss, run.accelerator, backward)


def _agree(accelerator: Accelerator, *seen: Tensor | float) -> list[float]:
    """The mean over the processes of what each has seen: what one knows, all know and act on.

    One exchange, and the only wait for the device in a step.
    """
    own = torch.stack([torch.as_tensor(value, dtype=torch.float32, device=accelerator.device) for value in seen])
    return accelerator.reduce(own, reduction="mean").tolist()


def _is_hopeless(run: TrainingRun, loss: float) -> bool:
    """Whether so many steps in a row were left out that the run must end.

    In fp16 the scaler hears of each, and lowers its scale. As long as the loss is finite and the scale above 1 it may
    find one at which the gradients are finite, too, as it does in the first steps of every run.
    """
    scaler = run.accelerator.scaler
    if scaler is not None:
        scaler.update()
    in_a_row = run.health.num_skipped_in_a_row >= run.config.max_bad_steps
    return in_a_row and (scaler is None or not math.isfinite(loss) or scaler.get_scale() <= 1)


def _give_up(
    run: TrainingRun,
    task: Task,
    micro_batches: Sequence[Batch],
    batches: TrainingBatches,
    save_model: SaveModel | None,
) -> None:
    """Find where the bad numbers come from, write the step down, and end the run; all processes say the same."""
    accelerator, one = run.accelerator, torch.ones((), device=run.accelerator.device)

    def forward(batch: Batch) -> Tensor:
        with accelerator.autocast():
            return task.loss(run.model, send_to_device(batch, accelerator.device), one)

    parts = run.memory.cut(micro_batches)
    clauses = (first_not_finite(run.model, functools.partial(forward, part)) for part in parts)
    own = next(filter(None, clauses), None)
    folder = run.output_dir / f"diagnosis-{run.step + 1}"
    write_diagnosis(folder, accelerator.process_index, micro_batches, batches.examples(run.step), own)
    found = next(filter(None, gather_object([own])), "the pass is finite when it is run again")
    examples = gather_object(batches.examples(run.step))
    if run.is_main_process and save_model is not None:
        save_model(folder, run.model.state_dict())
    wait_for_everyone(accelerator)
    which = f"examples {', '.join(map(str, examples[:8]))}{', ...' if examples[8:] else ''}" if examples else "a stream"
    raise UserError(
        f"Loss or gradient was not finite in {run.health.num_skipped_in_a_row} steps in a row, the last of them step "
        f"{run.step + 1} ({which}): {found}. Its batches and the weights are in {folder}; lower learning_rate, "
        "lengthen warmup_steps, set max_grad_norm, or look at the data."
    )


@torch.no_grad()
def evaluate(
    task: Task, model: nn.Module, config: TrainingConfig, accelerator: Accelerator, halvings: int = 0
) -> dict[str, float]:
    """Metrics of `model` on the validation examples, each judged once, however many processes share them.

    Args:
        halvings: How often the micro-batch is halved to begin with; memory that runs out halves it further.
    """
    was_training = model.training
    model.eval()
    precise = torch.float32 if accelerator.device.type == "mps" else torch.float64  # Apple's GPU has no doubles
    totals = torch.zeros(len(task.measures), device=accelerator.device, dtype=precise)
    num_targets = torch.zeros((), device=accelerator.device, dtype=torch.long)
    batching = MicroBatching(halvings)

    def judge(batch: Batch) -> Tensor:
        with accelerator.autocast():
            sums = task.evaluation_sums(model, send_to_device(batch, accelerator.device))
        return torch.stack([sums[name].to(precise) for name in task.measures])

    for batch in evaluation_batches(task, config, accelerator):
        num_targets += task.count_targets(batch)
        totals += torch.stack(in_parts(batch, batching, judge)).sum(dim=0)
    totals = accelerator.reduce(totals, reduction="sum")
    num_targets = accelerator.reduce(num_targets, reduction="sum")
    model.train(was_training)
    means = dict(zip(task.measures, (totals / num_targets).tolist(), strict=True))
    return task.metrics(means, int(num_targets))


def _evaluate_if_due(run: TrainingRun, task: Task, callbacks: Sequence[Callback]) -> None:
    """Evaluate before the first step, every `eval_steps`, and after the last; each step once, also when resumed."""
    every = run.config.eval_steps
    ends = run.step in (0, run.num_steps) or run.stop_reason is not None
    if not ends and not (every and run.step % every == 0):
        return
    if run.evaluations and run.evaluations[-1].step == run.step:
        return
    started = time.perf_counter()
    metrics = evaluate(task, run.model, run.config, run.accelerator, run.memory.halvings)
    if not math.isfinite(metrics["loss"]):
        raise UserError(
            f"The validation loss is {metrics['loss']} at step {run.step}, so the run has diverged: lower "
            "learning_rate, lengthen warmup_steps, or set max_grad_norm."
        )
    evaluation = Evaluation(run.step, metrics, time.perf_counter() - started)
    run.evaluations.append(evaluation)
    tell(callbacks, "on_evaluation", run, evaluation)
