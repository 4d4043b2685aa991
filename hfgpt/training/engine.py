"""The training loop of every recipe, to be read beside the book's `train_model_simple` (section 5.2).

For each step: take the global batch, add up the gradients of its parts, clip, set the learning rate, step. The loss is
the sum over all targets of the global batch, on all devices, divided by their number: a run is the same however the
batch is split. Everything else (progress bar, logs, pictures, samples) listens to events.
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn

from hfgpt.errors import UserError

from .batches import evaluation_batches, micro_batch_size, num_training_steps, training_batches
from .config import TrainingConfig
from .events import Callback, Evaluation, StepReport, TrainingRun
from .optimization import build_optimizer, learning_rate_at
from .reports import Meter
from .task import Batch, Task

__all__ = ["evaluate", "start_accelerator", "train"]

logger = logging.getLogger(__name__)


def start_accelerator(config: TrainingConfig) -> Accelerator:
    """The devices of this launch, in the number format that the configuration asks for or the device allows.

    Raises:
        UserError: If the device has not the number format, or the processes cannot share the global batch evenly.
    """
    precision = config.mixed_precision
    if precision == "auto":
        precision = (
            "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "no"
        )
    try:
        accelerator = Accelerator(mixed_precision=precision)
    except ValueError as error:  # no such format on this device, or another one is in use in this Python process
        raise UserError(f"mixed_precision {precision!r} cannot be used here: {' '.join(str(error).split())}") from error
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
) -> TrainingRun:
    """Train `model` on `task` and return the state of the finished run.

    Raises:
        UserError: If the configuration does not fit the number of processes or the data.
    """
    num_steps = num_training_steps(task.train_examples, config)
    if config.warmup_steps >= num_steps and accelerator.is_main_process:
        logger.warning(
            "The learning rate never reaches its peak: %d steps, warmup_steps %d.", num_steps, config.warmup_steps
        )
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()  # type: ignore[operator]
    model.to(accelerator.device)
    optimizer = build_optimizer(model, config)
    compiled = torch.compile(model) if config.torch_compile else model
    trained, optimizer = accelerator.prepare(compiled, optimizer)
    run = TrainingRun(config, model, optimizer, accelerator, num_steps)
    meter = Meter(task.unit)

    _tell(callbacks, "on_train_begin", run)
    _evaluate_and_tell(run, task, callbacks)
    model.train()
    started = time.perf_counter()
    for micro_batches in training_batches(task, config, num_steps, accelerator):
        learning_rate = learning_rate_at(run.step, num_steps, config)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        num_targets = accelerator.reduce(_count_targets(task, micro_batches, accelerator.device), reduction="sum")
        loss = _accumulate_gradients(task, trained, accelerator, micro_batches, num_targets)
        grad_norm = accelerator.clip_grad_norm_(trained.parameters(), config.max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        run.step += 1
        seconds, started = time.perf_counter() - started, time.perf_counter()
        report = StepReport(run.step, loss, learning_rate, grad_norm, num_targets, seconds)
        meter.add(report)
        _tell(callbacks, "on_step", run, report)
        if run.step == num_steps or run.step % config.logging_steps == 0:
            summary = meter.summary()
            _refuse_divergence(summary["train_loss"], run.step)
            _tell(callbacks, "on_log", run, summary)
        if run.step == num_steps or (config.eval_steps and run.step % config.eval_steps == 0):
            _evaluate_and_tell(run, task, callbacks)
            started = time.perf_counter()
    _tell(callbacks, "on_train_end", run)
    return run


def _refuse_divergence(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"The loss is {loss} at step {step}, so the run has diverged: lower learning_rate, lengthen warmup_steps, "
            "or set max_grad_norm."
        )


def _tell(callbacks: Sequence[Callback], event: str, *details: Any) -> None:
    for callback in callbacks:
        getattr(callback, event)(*details)


def _count_targets(task: Task, micro_batches: Sequence[Batch], device: torch.device) -> Tensor:
    """Targets in this process's part of the global batch, as a tensor on the device: nothing waits for it."""
    return torch.tensor(sum(task.count_targets(batch) for batch in micro_batches), device=device)


def _accumulate_gradients(
    task: Task, model: nn.Module, accelerator: Accelerator, micro_batches: Sequence[Batch], num_targets: Tensor
) -> Tensor:
    """Add up the gradients of the global batch's mean loss; returns that loss, the same on every process."""
    # Distribution averages gradients over the processes where the sum is wanted: so each divides by its share of N.
    num_items_in_batch = num_targets / accelerator.num_processes
    total = torch.zeros((), device=accelerator.device)
    for index, batch in enumerate(micro_batches):
        last = index == len(micro_batches) - 1  # only then do the processes exchange gradients
        with nullcontext() if last else accelerator.no_sync(model):
            loss = task.loss(model, send_to_device(batch, accelerator.device), num_items_in_batch)
            accelerator.backward(loss)
        total += loss.detach()
    return accelerator.reduce(total, reduction="mean")


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, config: TrainingConfig, accelerator: Accelerator) -> dict[str, float]:
    """Metrics of `model` on the validation examples, each judged once, however many processes share them."""
    was_training = model.training
    model.eval()
    one = torch.ones((), device=accelerator.device)  # the divisor that leaves a loss summed
    precise = torch.float32 if accelerator.device.type == "mps" else torch.float64  # Apple's GPU has no doubles
    total_loss = torch.zeros((), device=accelerator.device, dtype=precise)
    num_targets = torch.zeros((), device=accelerator.device, dtype=torch.long)
    for batch in evaluation_batches(task, config, accelerator):
        num_targets += task.count_targets(batch)
        with accelerator.autocast():
            total_loss += task.loss(model, send_to_device(batch, accelerator.device), one)
    total_loss = accelerator.reduce(total_loss, reduction="sum")
    num_targets = accelerator.reduce(num_targets, reduction="sum")
    model.train(was_training)
    return task.metrics((total_loss / num_targets).item(), int(num_targets))


def _evaluate_and_tell(run: TrainingRun, task: Task, callbacks: Sequence[Callback]) -> None:
    started = time.perf_counter()
    metrics = evaluate(task, run.model, run.config, run.accelerator)
    _refuse_divergence(metrics["loss"], run.step)
    evaluation = Evaluation(run.step, metrics, time.perf_counter() - started)
    run.evaluations.append(evaluation)
    _tell(callbacks, "on_evaluation", run, evaluation)
