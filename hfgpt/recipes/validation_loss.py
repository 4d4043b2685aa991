"""What a validation loss says: per token, per byte, and how much of it is owed to the choice of the text."""

import math

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor

from hfgpt.evaluation.intervals import NUM_RESAMPLES, percentile_interval
from hfgpt.training.batches import evaluation_batches
from hfgpt.training.events import TrainingRun
from hfgpt.training.memory import MicroBatching, in_parts
from hfgpt.training.processes import on_every_process
from hfgpt.training.task import Batch, Task

__all__ = ["FEWEST_BATCHES", "METHOD", "bits_per_byte", "loss_interval", "perplexity"]

METHOD = (
    "percentile bootstrap over batches of neighbouring blocks of the validation text, which have stories and sentences "
    "in common, 2,000 resamples, 95 %"
)

# Of fewer, resampling says too little.
FEWEST_BATCHES = 20


def perplexity(loss: float) -> float:
    """The exponential of nats per token; infinite where it overflows, NaN of NaN."""
    return math.inf if loss >= 700 else math.exp(loss)


def bits_per_byte(loss: float, tokens_per_byte: float) -> float:
    """Nats per token as bits per byte of the text."""
    return loss * tokens_per_byte / math.log(2)


@torch.no_grad()
def loss_interval(run: TrainingRun, task: Task) -> list[float] | None:
    """The interval [low, high] of the loss of the model as it is now; on every process, each of which judges its share.

    It costs another evaluation. None if there are fewer than `FEWEST_BATCHES` batches to resample.
    """
    was_training = run.model.training
    run.model.eval()
    batching = MicroBatching(run.memory.halvings)

    def judge(batch: Batch) -> Tensor:
        with run.accelerator.autocast():
            return task.evaluation_sums(run.model, send_to_device(batch, run.accelerator.device))["loss"]

    def own_share() -> list[tuple[float, int]]:
        return [
            (sum(torch.stack(in_parts(batch, batching, judge)).tolist()), task.count_targets(batch))
            for batch in evaluation_batches(task, run.config, run.accelerator)
        ]

    found = on_every_process(run.accelerator, own_share)
    run.model.train(was_training)
    if len(found) < FEWEST_BATCHES:
        return None
    sums, counts = (np.asarray(column, dtype=np.float64) for column in zip(*found, strict=True))
    drawn = np.random.default_rng(0).integers(len(found), size=(NUM_RESAMPLES, len(found)))
    return percentile_interval(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
