"""Pretraining: from text to a model that continues text (the book's chapter 5).

accelerate launch recipes/pretrain.py --config demo
hfgpt pretrain --config demo --learning_rate 1e-3
"""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptPreTrainedModel
from hfgpt.errors import UserError
from hfgpt.hub.run_record import RunRecord
from hfgpt.serving.defaults import DEFAULT_TEMPERATURE, DEFAULT_TOP_K
from hfgpt.serving.generation import continue_prompt, encode_prompt
from hfgpt.serving.loading import load_model
from hfgpt.tokenization import load_tokenizer
from hfgpt.training.batches import num_training_steps
from hfgpt.training.engine import start_accelerator
from hfgpt.training.events import TrainingRun
from hfgpt.training.reports import LossCurve
from hfgpt.training.task import Batch, Task

from .card_parts import run_record
from .console import print_table
from .corpus import Corpus, prepare_corpus
from .embeddings import make_room, refuse_large_tokenizer
from .hub_push import check_hub
from .pretrain_config import PretrainConfig
from .pretraining_card import write_pretraining_card
from .run_folder import (
    check_run_folder,
    find_checkpoint,
    save_final,
    save_model,
    write_results,
)
from .running import run_command, train_in_folder
from .samples import SampleText
from .validation_loss import bits_per_byte, loss_interval, perplexity

__all__ = ["LanguageModeling", "main", "pretrain"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipe from the command line; see `run_command`."""
    run_command("pretrain", PretrainConfig, __doc__ or "", pretrain, arguments)


def pretrain(config: PretrainConfig) -> TrainingRun:
    """Train a language model as the configuration says and save it under `output_dir/final`.

    Returns:
        The run. If a signal has interrupted it, its `stop_reason` says so, and there is a checkpoint but no `final/`.

    Raises:
        UserError: If source, tokenizer, model and sizes do not fit together; before any long work.
    """
    started = time.perf_counter()
    accelerator = start_accelerator(config)
    check_run_folder(config)
    check_hub(config, accelerator)
    resume_from = find_checkpoint(config, accelerator)
    source = config.init_from if resume_from is None else str(resume_from)
    checkpoint = None if source is None else load_checkpoint(source, config)
    corpus = prepare_corpus(config, accelerator)
    set_seed(config.seed)
    model = new_model(config, corpus.tokenizer) if checkpoint is None else checkpoint
    made_room = (
        []
        if checkpoint is None or resume_from is not None
        else make_room(checkpoint, len(corpus.tokenizer), len(corpus.new_tokens))
    )
    check_fit(model, corpus.tokenizer, config)
    record = run_record(config, model)
    model.generation_config = default_generation_config(corpus.tokenizer, model.config.max_position_embeddings)
    corpus.tokenizer.model_max_length = model.config.max_position_embeddings  # saved with the model in final/
    num_training_steps(corpus.train, config)  # refuses too little text
    task = LanguageModeling(corpus)
    return train_in_folder(
        task,
        model,
        config,
        accelerator,
        resume_from=resume_from,
        lines=[
            *corpus.description,
            *made_room,
            f"model: {model.num_parameters():,} parameters on {accelerator.device}",
        ],
        callbacks=[
            record,
            LossCurve(corpus.baseline_losses),
            SampleText(corpus.tokenizer, config.sample_prompts, config.sample_max_new_tokens, config.seed),
        ],
        save_model=lambda path, weights: save_model(path, model, corpus.tokenizer, config, weights),
        finish=lambda run, folder: _finish(run, task, corpus, config, record, folder, started),
    )


def _finish(
    run: TrainingRun,
    task: Task,
    corpus: Corpus,
    config: PretrainConfig,
    record: RunRecord,
    folder: Path,
    started: float,
) -> None:
    """Save what a finished run leaves, and say what it reached."""
    interval = loss_interval(run, task)
    if not run.is_main_process:
        return
    assert isinstance(run.model, HfGptPreTrainedModel)
    seconds = time.perf_counter() - started
    final = save_final(folder, run.model, corpus.tokenizer, config)
    write_results(folder, results(run, corpus, seconds))
    write_pretraining_card(run, corpus, config, record, final, run.model, seconds=seconds, interval=interval)
    print_results(run, corpus, seconds)
    print_reloaded_sample(final, config)
    print(f"Loss curve: {folder / 'loss_curve.png'}   Numbers: {folder / 'metrics.jsonl'}   Model: {final}")
    prompt = next(filter(None, config.sample_prompts), "One day")
    print(f"Try it:     hfgpt generate --model {final} --prompt {shlex.quote(prompt)}")


class LanguageModeling(Task):
    """Predict each next token of fixed-length blocks."""

    unit = "tokens"

    def __init__(self, corpus: Corpus) -> None:
        self.train_examples = corpus.train
        self.validation_examples = corpus.validation
        self.tokens_per_byte = corpus.tokens_per_byte
        self._fingerprint = corpus.fingerprint

    def fingerprint(self) -> dict[str, str]:
        """Of the training data and the tokenizer."""
        return self._fingerprint

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        """`(batch, block_size)` of input ids, and as many ids that follow them."""
        return {name: torch.stack([example[name] for example in examples]) for name in ("input_ids", "shift_labels")}

    def count_targets(self, batch: Batch) -> int:
        """Every position has a next token."""
        return batch["shift_labels"].numel()

    def loss(self, model: nn.Module, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        """Cross-entropy of the next token; a training step has no use for a cache."""
        return model(**batch, use_cache=False, num_items_in_batch=num_items_in_batch).loss

    def metrics(self, means: dict[str, float], num_targets: int) -> dict[str, float]:
        """Loss in nats per token; perplexity, its exponential; and bits per byte, which no tokenizer can flatter."""
        loss = means["loss"]
        return {
            "loss": loss,
            "perplexity": perplexity(loss),
            "bits_per_byte": bits_per_byte(loss, self.tokens_per_byte),
        }


def new_model(config: PretrainConfig, tokenizer: PreTrainedTokenizerBase) -> HfGptPreTrainedModel:
    """A model with random weights for the tokenizer's ids and blocks of `block_size`, unless `config.model` says else.

    Raises:
        UserError: If the fields do not fit together.
    """
    special_tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": config.block_size}
    try:
        model_config = HfGptConfig(**special_tokens | sizes | config.model)
        return HfGptForCausalLM._from_config(model_config, **_model_options(config))
    except (ValueError, StrictDataclassError, ImportError) as error:
        raise UserError(f"The model cannot be built: {' '.join(str(error).split())}") from error


def load_checkpoint(source: str, config: PretrainConfig) -> HfGptPreTrainedModel:
    """The model to continue from.

    Raises:
        UserError: If there is none, or its context is shorter than a block.
    """
    model = load_model(source, **_model_options(config), **config.model)
    if not model.config.is_causal:
        raise UserError(
            f"{source} has is_causal = false, so that each token would see the next one, which it is to predict: "
            "continue from a causal model."
        )
    _refuse_long_blocks(config, model)
    return model


def _model_options(config: PretrainConfig) -> dict[str, Any]:
    # Weights are kept in fp32 whatever the checkpoint's type is: mixed precision rounds copies of them.
    return {"attn_implementation": config.attn_implementation, "dtype": torch.float32}


def _refuse_long_blocks(config: PretrainConfig, model: HfGptPreTrainedModel) -> None:
    if config.block_size > model.config.max_position_embeddings:
        raise UserError(
            f"block_size ({config.block_size}) is greater than the model's max_position_embeddings "
            f"({model.config.max_position_embeddings}): lower it."
        )


def check_fit(model: HfGptPreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: PretrainConfig) -> None:
    """Check that model, tokenizer, blocks and prompts fit together.

    Raises:
        UserError: If they do not.
    """
    refuse_large_tokenizer(len(tokenizer), model)
    _refuse_long_blocks(config, model)
    context = model.config.max_position_embeddings
    for prompt in config.sample_prompts:
        encode_prompt(tokenizer, prompt, max_new_tokens=config.sample_max_new_tokens, max_position_embeddings=context)


def default_generation_config(tokenizer: PreTrainedTokenizerBase, context: int) -> GenerationConfig:
    """How the finished model writes where nobody says else; `pipeline` would ask a small one for too many tokens."""
    return GenerationConfig(
        do_sample=True,
        temperature=DEFAULT_TEMPERATURE,
        top_k=DEFAULT_TOP_K,
        max_new_tokens=min(256, context // 2),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def print_reloaded_sample(final: Path, config: PretrainConfig) -> None:
    """Open the saved folder as a user would, and show that it writes."""
    prompt = config.sample_prompts[0] if config.sample_prompts else ""
    (text,) = continue_prompt(
        load_model(final),
        load_tokenizer(final),
        prompt,
        max_new_tokens=config.sample_max_new_tokens,
        temperature=DEFAULT_TEMPERATURE,
        top_k=DEFAULT_TOP_K,
        seed=config.seed + 1,  # another text than the last evaluation's
    )
    print(f"Reloaded from {final}, the model writes:\n\n{prompt}{text.strip() if not prompt else text}\n")


def results(run: TrainingRun, corpus: Corpus, seconds: float) -> dict[str, Any]:
    """What `results.json` holds."""
    return {
        "steps": run.step,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "seconds": round(seconds, 1),
        "validation_before": run.evaluations[0].metrics,
        "validation_after": run.evaluations[-1].metrics,
        "baseline_losses": corpus.baseline_losses,
    }


def print_results(run: TrainingRun, corpus: Corpus, seconds: float) -> None:
    """The table at the end: this model before and after, beside the n-gram models."""
    losses = {
        "untrained": run.evaluations[0].metrics["loss"],
        **corpus.baseline_losses,
        f"GPT after {run.step} steps": run.evaluations[-1].metrics["loss"],
    }
    rows = [
        [name, f"{loss:.3f}", f"{perplexity(loss):,.1f}", f"{bits_per_byte(loss, corpus.tokens_per_byte):.3f}"]
        for name, loss in losses.items()
    ]
    print_table(
        f"Validation after {seconds / 60:.1f} minutes", ["model", "loss (nats/token)", "perplexity", "bits/byte"], rows
    )
