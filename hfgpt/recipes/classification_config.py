"""What a finetuning for classification can be told."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hfgpt.training.config import TrainingConfig

from .configuration import model_field_problems

__all__ = ["ClassificationConfig"]


@dataclass(kw_only=True)
class ClassificationConfig(TrainingConfig):
    """Finetuning for classification: which labelled texts, which pretrained model, which part of it is trained."""

    source: str
    """Labelled texts: builtin:messages, a local file or folder (csv, tsv, jsonl, parquet, gz), or a Hub id."""
    source_config: str | None = None
    """Configuration ("subset") of a Hub dataset."""
    source_split: str = "train"
    """Split of a Hub dataset that is trained on."""
    source_revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    text_column: str | None = None
    """Column that holds the text. Default: `text`, or the only column of strings besides the label."""
    text_pair_column: str | None = None
    """Column of a second text that is judged together with the first; null: there is none."""
    label_column: str | None = None
    """Column that holds the class. Default: `label`, or the one that can only be it."""
    header: bool | None = None
    """Whether the first line of a csv or tsv file names the columns; null: as its names say."""
    validation_split: str | None = None
    """Split of a Hub dataset to validate on. Default: validation_fraction of the training texts."""
    test_split: str | None = None
    """Split of a Hub dataset to test on. Default: test_fraction of the training texts."""
    validation_source: str | None = None
    """File or folder to validate on. Default: validation_fraction of the texts of source."""
    test_source: str | None = None
    """File or folder to test on. Default: test_fraction of the texts of source."""
    validation_fraction: float = 0.1
    """Share of the texts to validate on, of each class."""
    test_fraction: float = 0.2
    """Share of the texts to test on, of each class."""
    balance: Literal["none", "downsample", "class_weights"] = "none"
    """What is done about classes of unequal size: nothing; every class cut to the size of the smallest (the book's
    way, before the split); or a loss in which every class weighs the same."""
    empty_texts: Literal["keep", "drop"] = "keep"
    """Whether texts without a character are judged like others."""

    init_from: str
    """Pretrained model to finetune, a folder or Hub id, GPT-2's included."""
    random_weights: bool = False
    """Begin with random weights in the shape of init_from: what pretraining was good for shows in the difference."""
    tokenizer: str | None = None
    """Folder or Hub id of the tokenizer. Default: that of init_from."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of HfGptConfig to change, e.g. --model.residual_dropout 0.1; such as change no shape."""
    attn_implementation: str | None = None
    """Attention function: eager, sdpa, ... Default: transformers' choice."""
    trainable: Literal["head", "last_block", "last_n_blocks", "all", "lora"] = "last_block"
    """What is trained: the new head alone; with it the final norm and the last block (the book's way), or the last
    num_trainable_blocks; everything; or the head and low-rank additions to every matrix of the blocks (LoRA, peft)."""
    num_trainable_blocks: int = 2
    """Blocks that last_n_blocks trains."""
    lora_rank: int = 16
    """Rank of LoRA's additions."""
    lora_alpha: float = 16.0
    """LoRA's additions are scaled by lora_alpha / lora_rank."""
    lora_dropout: float = 0.0
    """Share of a matrix's inputs that LoRA's additions do not see in a training step."""
    classifier_pooling: Literal["last_token", "first_token", "mean"] = "last_token"
    """Which position the head judges: the last of the text, the only one that has seen all of it; the first; or the
    mean of all."""
    end_of_text: Literal["none", "before", "after", "both"] = "none"
    """Where the end-of-text token stands beside a text. A packed pretraining saw every text between two of them."""
    max_length: int | None = None
    """Tokens of a text; longer ones are truncated. Default: the model's context."""
    truncation_side: Literal["right", "left"] = "right"
    """Where a long text is cut."""
    pad_to_length: int | None = None
    """Pad every text to so many tokens, as the book does. Default: to the longest of its batch."""
    ignore_padding: bool = True
    """Whether padding is hidden from the model; false: it sees the padding of pad_to_length (default: max_length), and
    judges the last position of that, as the book's chapter does. For comparison: in use, a text comes alone."""
    cache_frozen: Literal["auto", "true", "false"] = "auto"
    """Compute what the frozen part of the model makes of each text once, and keep it in a memory-mapped file; auto:
    if something is frozen and the disk has room."""

    calibrate: bool = True
    """Divide the head by the temperature at which its probabilities fit the validation texts best (Guo et al. 2017):
    the classes stay, the confidence becomes honest."""
    extra_metrics: list[str] = field(default_factory=list)
    """More metrics for the report: names or folders of `evaluate` modules."""

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
                found.append(f"Give one of {part}_split (of a Hub dataset) and {part}_source (a file or folder).")
        for name in ("num_trainable_blocks", "lora_rank", "lora_alpha", "max_length", "pad_to_length"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                found.append(f"{name} must be greater than zero, but is {getattr(self, name)}.")
        if not 0 <= self.lora_dropout < 1:
            found.append(f"lora_dropout must lie between 0 and 1, 1 excluded, but is {self.lora_dropout}.")
        if self.pad_to_length and self.max_length and self.max_length > self.pad_to_length:
            found.append(
                f"max_length ({self.max_length}) is above pad_to_length ({self.pad_to_length}): lower one, raise the "
                "other."
            )
        found += model_field_problems(self.model)
        for name, where in (("classifier_pooling", "classifier_pooling"), ("pad_token_id", "the tokenizer")):
            if name in self.model:
                found.append(f"model.{name} follows from {where}: leave it out.")
        if self.cache_frozen == "true" and self.trainable in ("all", "lora"):
            found.append(f"cache_frozen cannot be true where trainable is {self.trainable}: nothing is frozen whole.")
        return found
