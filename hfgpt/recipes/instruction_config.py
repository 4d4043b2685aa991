"""What a finetuning for instructions can be told."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hfgpt.data.conversations import Form
from hfgpt.training.config import TrainingConfig

from .configuration import model_field_problems

__all__ = ["InstructionConfig"]


@dataclass(kw_only=True)
class InstructionConfig(TrainingConfig):
    """Finetuning for instructions: which conversations, in which template, which pretrained model learns to answer."""

    source: str
    """Conversations: builtin:instructions, builtin:instructions-large (the same with 150,000 to train on), a local
    file or folder (json, jsonl, csv, tsv, parquet, gz), or a Hub id."""
    form: Form | None = None
    """How the source writes them: alpaca, messages, prompt_completion or sharegpt. Default: as its columns say."""
    source_config: str | None = None
    """Configuration ("subset") of a Hub dataset."""
    source_split: str = "train"
    """Split of the source that is trained on."""
    source_revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    validation_split: str | None = None
    """Split of the source to validate on. Default: that of a built-in source, else validation_fraction."""
    test_split: str | None = None
    """Split of the source to test on. Default: that of a built-in source, else test_fraction."""
    validation_source: str | None = None
    """File or folder to validate on. Default: validation_fraction of the conversations of source."""
    test_source: str | None = None
    """File or folder to test on. Default: test_fraction of the conversations of source."""
    validation_fraction: float = 0.05
    """Share of the conversations to validate on."""
    test_fraction: float = 0.1
    """Share of the conversations to test on."""
    shuffle_split: bool = True
    """Whether chance makes the split; false: the first are trained on, the next tested, the last validated, as in the
    book."""
    system_prompt: str | None = None
    """System message of conversations that have none of their own."""
    unanswered: Literal["refuse", "drop"] = "refuse"
    """What becomes of conversations without an answer: refused, with their place; or left out, with their number."""

    template: str = "alpaca"
    """How a conversation becomes text: alpaca or phi3, as in the book; chatml; a file of one's own (.jinja); or saved,
    the template that the tokenizer has."""
    loss_on: Literal["answer", "all"] = "answer"
    """Which tokens are learned: the answers with their end tokens, or the instructions, too (the book's way)."""
    max_length: int | None = None
    """Tokens of a conversation. Default: the model's context."""
    too_long: Literal["drop", "truncate", "refuse"] = "drop"
    """What becomes of longer ones: left out; cut, so that their last answer has no end (the book's way); or refused."""
    batching: Literal["length_groups", "packing", "random"] = "length_groups"
    """What stands together in a batch: conversations of similar length; rows of max_length tokens that each hold
    several whole ones, which do not see each other; or what chance puts there, padded to the longest (the book's way).
    With packing, global_batch_size counts rows."""

    init_from: str
    """Pretrained model to finetune, a folder or Hub id, GPT-2's included."""
    random_weights: bool = False
    """Begin with random weights in the shape of init_from: what pretraining was good for shows in the difference."""
    tokenizer: str | None = None
    """Folder or Hub id of a tokenizer. Default: that of init_from."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of HfGptConfig to change that change no shape, that is dropouts, e.g. --model.residual_dropout 0.1."""
    attn_implementation: str | None = None
    """Attention function: eager, sdpa, ... Default: transformers' choice."""
    trainable: Literal["all", "lora"] = "all"
    """What is trained: everything, or low-rank additions to every matrix of the blocks (LoRA, peft)."""
    lora_rank: int = 16
    """Rank of LoRA's additions."""
    lora_alpha: float = 16.0
    """LoRA's additions are scaled by lora_alpha / lora_rank."""
    lora_dropout: float = 0.0
    """Share of a matrix's inputs that LoRA's additions do not see in a training step."""

    max_new_tokens: int | None = None
    """Tokens of the longest answer to a test prompt. Default: as many as the longest answer that is trained on."""
    max_test_examples: int | None = None
    """Answer the first so many test prompts when training is over; 0: none. Default: all."""

    def problems(self) -> list[str]:
        """What cannot work, a sentence each."""
        found = super().problems()
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 1:
                found.append(f"{name} must lie between 0 and 1, but is {getattr(self, name)}.")
        if self.validation_fraction + self.test_fraction >= 1:
            found.append("validation_fraction and test_fraction leave nothing to train on: lower them.")
        for part in ("validation", "test"):
            if getattr(self, f"{part}_split") and getattr(self, f"{part}_source"):
                found.append(f"Give one of {part}_split (of the source) and {part}_source (a file or folder).")
        for name in ("lora_rank", "lora_alpha", "max_length", "max_new_tokens"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                found.append(f"{name} must be greater than zero, but is {getattr(self, name)}.")
        if self.max_test_examples is not None and self.max_test_examples < 0:
            found.append(f"max_test_examples must not be negative, but is {self.max_test_examples}.")
        if not 0 <= self.lora_dropout < 1:
            found.append(f"lora_dropout must lie between 0 and 1, 1 excluded, but is {self.lora_dropout}.")
        if self.random_weights and self.trainable == "lora":
            found.append("LoRA adds to weights that were learned: with random_weights, train all.")
        wrong = model_field_problems(self.model)
        fixed = sorted(name for name in self.model if not name.endswith("_dropout"))
        if fixed and not wrong:
            wrong.append(f"model.{', model.'.join(fixed)} cannot be changed in a trained checkpoint: leave it out.")
        return found + wrong
