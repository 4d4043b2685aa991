"""What every training can be told: the fields that all recipes share."""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["TrainingConfig"]


@dataclass(kw_only=True)
class TrainingConfig:
    """How to train, whatever the task. Names are those of transformers' `TrainingArguments` where it has them."""

    output_dir: str
    """Folder of the run: configuration, metrics, pictures, and the finished model under `final/`."""
    overwrite_output_dir: bool = False
    """Whether a run that stands in output_dir may be replaced."""
    resume: str = "never"
    """Which checkpoint to go on from, as if the run had never ended: auto (the newest whole one in output_dir, or from
    the start if there is none), the path of one, or never."""
    seed: int = 42
    """Seed of the initial weights, the dropout and the order of examples, from 0 to 2^32 - 1."""

    max_steps: int | None = None
    """Optimizer steps to take. Exactly one of max_steps and num_train_epochs must be given."""
    num_train_epochs: float | None = None
    """Passes over the training examples."""
    max_minutes: float | None = None
    """Stop after so many minutes of training, counted anew after each resumption; null: never."""
    max_tokens: int | None = None
    """Stop after so many targets, that is tokens that bear loss (or texts that are classified); null: never."""
    early_stopping_patience: int | None = None
    """Stop when so many evaluations in a row have not lowered the validation loss; null: never."""
    global_batch_size: int = 32
    """Examples in one optimizer step, over all devices: the run is the same on any number of them."""
    micro_batch_size: int | None = None
    """Examples that one device computes at once; gradients are accumulated up to global_batch_size.
    Default: global_batch_size / number of processes, that is no accumulation."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """What steps the weights: AdamW, as in the book; or Muon for the matrices of the blocks, beside AdamW for the rest,
    with the same learning rate and weight decay."""
    learning_rate: float = 6e-4
    """Peak learning rate."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    min_learning_rate: float = 0.0
    """Learning rate at the last step of a cosine or linear schedule."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices; biases and norms never decay."""
    muon_momentum: float = 0.95
    """Decay of Muon's sum of gradients."""
    adam_beta1: float = 0.9
    """Decay of AdamW's mean of gradients."""
    adam_beta2: float = 0.95
    """Decay of AdamW's mean of squared gradients."""
    adam_epsilon: float = 1e-8
    """Added to AdamW's denominator."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this norm where theirs is greater; null: never."""

    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Number format of the matrix products; auto: that of `accelerate launch --mixed_precision`, else bf16 on a GPU,
    else no (fp32)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    torch_compile: bool = False
    """Compile the training step: faster after a minute of compiling."""

    logging_steps: int = 10
    """Steps between two lines of metrics.jsonl."""
    eval_steps: int | None = None
    """Steps between two evaluations; there is always one before the first step and one after the last.
    Default: those two only."""
    max_eval_batches: int | None = None
    """Evaluate on the first so many global batches of the validation split; null: on all of it."""
    save_steps: int | None = None
    """Steps between two checkpoints; there is always one after the last step.
    Default: one with every evaluation."""
    keep_last: int = 2
    """How many of the newest checkpoints to keep."""
    keep_best: int = 1
    """How many of those with the lowest validation loss to keep besides."""
    save_in_background: bool = True
    """Write checkpoints while training goes on, from a copy of weights and optimizer in the CPU's memory."""
    max_bad_steps: int = 5
    """How many steps in a row may be left out, because loss or gradient is not finite, before the run ends."""
    dataloader_num_workers: int = 0
    """Processes that prepare batches ahead, for each device; 0: prepare them in the training process."""

    push_to_hub: bool = False
    """Push the finished model to the Hub, with its card, numbers and pictures, and nothing that is private."""
    hub_model_id: str | None = None
    """Repository to push to, ORGANISATION/NAME or NAME. Default: the name of output_dir, under your own account."""
    hub_private_repo: bool | None = None
    """Whether a new repository is private. Default: as your account's settings say."""
    hub_strategy: Literal["end", "every_save"] = "end"
    """end: push when the run has ended. every_save: push each checkpoint's model in the background, too; one that is
    still waiting when the next is written is passed over."""

    def problems(self) -> list[str]:
        """What cannot work, a sentence each, so that all of it is said at once."""
        found = []
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                found.append(f"{name} must be a finite number, but is {value}.")
        if (self.max_steps is None) == (self.num_train_epochs is None):
            found.append("Give exactly one of max_steps and num_train_epochs, and set the other to null.")
        positive = "max_steps num_train_epochs global_batch_size micro_batch_size learning_rate adam_epsilon"
        positive += " max_grad_norm logging_steps eval_steps max_eval_batches max_minutes max_tokens"
        positive += " early_stopping_patience save_steps keep_last max_bad_steps"
        for name in positive.split():
            value = getattr(self, name)
            if value is not None and value <= 0:
                found.append(f"{name} must be greater than zero, but is {value}.")
        for name in ("warmup_steps", "min_learning_rate", "weight_decay", "dataloader_num_workers", "keep_best"):
            if getattr(self, name) < 0:
                found.append(f"{name} must not be negative, but is {getattr(self, name)}.")
        for name in ("adam_beta1", "adam_beta2", "muon_momentum"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"{name} must lie between 0 and 1, 1 excluded, but is {getattr(self, name)}.")
        if not 0 <= self.seed < 2**32:  # what NumPy's generator, which `set_seed` seeds with the others, takes
            found.append(f"seed must lie between 0 and 2^32 - 1, but is {self.seed}.")
        if self.resume != "never" and self.overwrite_output_dir:
            found.append(
                f"resume ({self.resume}) goes on with a run and overwrite_output_dir replaces it: give one of them."
            )
        if self.min_learning_rate > self.learning_rate:
            found.append(f"min_learning_rate ({self.min_learning_rate}) is above learning_rate ({self.learning_rate}).")
        if self.micro_batch_size and self.global_batch_size % self.micro_batch_size != 0:
            found.append(
                f"global_batch_size ({self.global_batch_size}) must be a multiple of "
                f"micro_batch_size ({self.micro_batch_size})."
            )
        return found
