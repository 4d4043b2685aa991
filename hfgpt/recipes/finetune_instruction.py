"""Finetuning for instructions: from a pretrained model to one that answers (the book's chapter 7).

accelerate launch recipes/finetune_instruction.py --config demo
hfgpt instruct --config book --source instruction-data.json --template phi3
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from hfgpt import HfGptForCausalLM
from hfgpt.chat_templates import stop_token_ids
from hfgpt.data.conversation_batches import (
    EncodedConversations,
    PackedConversations,
    collate_conversations,
    pack_conversations,
)
from hfgpt.errors import UserError
from hfgpt.serving.loading import load_model
from hfgpt.training.batches import num_training_steps
from hfgpt.training.engine import start_accelerator
from hfgpt.training.events import TrainingRun
from hfgpt.training.reports import LossCurve
from hfgpt.training.task import Batch, Task

from .answer_loss import answer_loss
from .card_parts import run_record
from .embeddings import make_room, refuse_large_tokenizer
from .hub_push import check_hub
from .instruction_config import InstructionConfig
from .instruction_corpus import (
    InstructionCorpus,
    chat_tokenizer,
    load_conversation_splits,
    prepare_instruction_corpus,
)
from .instruction_results import InstructionResults
from .lora import add_lora_to_language_model, describe_trained, load_unmerged, merged_weights, save_unmerged
from .run_folder import check_run_folder, find_checkpoint, save_model
from .running import run_command, train_in_folder

__all__ = ["Answering", "finetune_instruction", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipe from the command line; see `run_command`."""
    run_command("instruct", InstructionConfig, __doc__ or "", finetune_instruction, arguments)


def finetune_instruction(config: InstructionConfig) -> TrainingRun:
    """Finetune a pretrained model as the configuration says and save it under `output_dir/final`.

    Returns:
        The run. If a signal has interrupted it, its `stop_reason` says so, and there is a checkpoint but no `final/`.

    Raises:
        UserError: If source, template, tokenizer, model and sizes do not fit together; before any long work.
    """
    accelerator = start_accelerator(config)
    check_run_folder(config)
    check_hub(config, accelerator)
    resume_from = find_checkpoint(config, accelerator)
    tokenizer, new_tokens = chat_tokenizer(config)
    model = load_language_model(config, resume_from)
    record = run_record(config, model)
    loaded = load_conversation_splits(config, accelerator)
    corpus = prepare_instruction_corpus(config, loaded, tokenizer, model.config.max_position_embeddings)
    set_seed(config.seed)
    made_room = [] if resume_from is not None else make_room(model, len(tokenizer), len(new_tokens))
    refuse_large_tokenizer(len(tokenizer), model)
    if config.random_weights and resume_from is None:
        model, made_room = HfGptForCausalLM(model.config), ["weights: random, in the shape of the model"]
    answers = generation_config(tokenizer, config.max_new_tokens or corpus.max_answer_length)
    model.generation_config = answers
    if config.trainable == "lora":
        add_lora_to_language_model(
            model, config.lora_rank, config.lora_alpha, config.lora_dropout, has_new_tokens=bool(new_tokens)
        )
        if resume_from is not None:
            load_unmerged(model, resume_from)
    task = Answering(corpus, config)
    num_training_steps(task.train_examples, config)  # refuses too few conversations
    results = InstructionResults(config, corpus, model, accelerator, record)

    def save(folder: Path, weights: dict[str, Tensor]) -> None:
        save_unmerged(model, folder, weights)
        save_model(folder, model, tokenizer, config, merged_weights(model, weights))

    return train_in_folder(
        task,
        model,
        config,
        accelerator,
        resume_from=resume_from,
        lines=[
            *corpus.description,
            *made_room,
            *task.description,
            f"trained on {accelerator.device}: {describe_trained(model)}",
        ],
        callbacks=[record, LossCurve()],
        save_model=save,
        begin=lambda: results.begin(resume_from),
        finish=results.finish,
    )


def load_language_model(config: InstructionConfig, resume_from: Path | None) -> HfGptForCausalLM:
    """The model to train: that of a checkpoint, or `init_from`.

    Raises:
        UserError: If it cannot be loaded, or each of its tokens sees the next one.
    """
    source = config.init_from if resume_from is None else str(resume_from)
    model = load_model(
        source,
        attn_implementation=config.attn_implementation,
        dtype=torch.float32,  # mixed precision rounds copies of the weights
        **config.model,
    )
    if not model.config.is_causal:
        raise UserError(
            f"{source} has is_causal = false, so that each token would see the next one, which it is to predict: "
            "finetune a causal model."
        )
    assert isinstance(model, HfGptForCausalLM)
    return model


def generation_config(tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """How the finished model answers where nobody says else: the likeliest token each time, until the answer ends."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stop_token_ids(tokenizer),  # type: ignore[arg-type]
        pad_token_id=tokenizer.pad_token_id,
    )


class Answering(Task):
    """Predict the tokens of answers, each from the conversation before it."""

    def __init__(self, corpus: InstructionCorpus, config: InstructionConfig) -> None:
        self.config = config
        self.pad_token_id: int = corpus.tokenizer.pad_token_id
        self._fingerprint = corpus.fingerprint
        self.train_examples: EncodedConversations | PackedConversations = corpus.train
        self.validation_examples = corpus.validation
        self.description: list[str] = []
        if config.batching == "packing":
            row_length = config.max_length or int(corpus.tokenizer.model_max_length)
            self.train_examples = packed = pack_conversations(corpus.train, row_length, config.seed)
            self._fingerprint = corpus.fingerprint | {"data set": packed.fingerprint()}
            self.description = [
                f"packed: {len(corpus.train):,} conversations in {len(packed):,} rows of at most {row_length} tokens, "
                f"{packed.lengths.sum() / (row_length * len(packed)):.1%} of which are filled"
            ]

    def lengths(self, examples: Any) -> Sequence[int] | None:
        """In tokens; None where batches are left to chance."""
        if examples is self.train_examples and self.config.batching == "random":
            return None
        return examples.lengths.tolist()

    def fingerprint(self) -> dict[str, str]:
        """Of the training data and the tokenizer; and of what decides on targets, batches and trained parameters."""
        config = self.config
        lora = f"lora (rank {config.lora_rank}, alpha {config.lora_alpha:g})"
        return self._fingerprint | {
            "loss_on": config.loss_on,
            "batching": config.batching,
            "trainable": lora if config.trainable == "lora" else config.trainable,
        }

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        """`(batch, tokens)` of input ids and the ids that follow them, -100 where nothing is to be learned."""
        return collate_conversations(examples, self.pad_token_id)

    def count_targets(self, batch: Batch) -> int:
        """Tokens that bear loss."""
        return int((batch["shift_labels"] >= 0).sum())

    def loss(self, model: nn.Module, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        """Cross-entropy of the tokens that bear loss."""
        assert isinstance(model, HfGptForCausalLM)
        return answer_loss(model, batch, num_items_in_batch)
