"""What a pretraining can be told."""

from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError

from hfgpt import HfGptConfig
from hfgpt.data.lanes import DEFAULT_NUM_LANES, DEFAULT_SHUFFLE_BUFFER_SIZE
from hfgpt.tokenization import END_OF_TEXT, added_token_problems
from hfgpt.training.config import TrainingConfig

from .configuration import model_field_problems

__all__ = ["PretrainConfig"]


@dataclass(kw_only=True)
class PretrainConfig(TrainingConfig):
    """Pretraining on text: where the text comes from, how it is cut, which model learns it."""

    source: str
    """Text to learn: builtin:stories, a local file or folder (txt, jsonl, csv, tsv, parquet, gz), or a Hub id."""
    source_config: str | None = None
    """Configuration ("subset") of a Hub dataset."""
    source_split: str = "train"
    """Split of a Hub dataset."""
    source_revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""
    text_column: str | None = None
    """Column that holds the text. Default: `text`, or the only column of strings."""
    streaming: bool = False
    """Read the source as training goes, without downloading or encoding it first; needs max_steps and a ready
    tokenizer."""
    stream_lanes: int = DEFAULT_NUM_LANES
    """Parts of a stream that are read side by side, an example from each in turn; as many as the source has pieces, if
    these are fewer. The order depends on it, but not on the number of processes, each of which reads its own lanes only
    if their number divides that of the lanes."""
    shuffle_buffer_size: int = DEFAULT_SHUFFLE_BUFFER_SIZE
    """Blocks of one lane of a stream that are shuffled among each other."""
    split_by: Literal["auto", "documents", "characters"] = "auto"
    """What the validation split is made of: whole documents, or the last part of all characters (the book's way).
    auto: documents if there are enough of them."""
    validation_fraction: float = 0.1
    """Share of the text that is kept for validation."""
    max_validation_documents: int = 1000
    """Documents taken for validation from a stream."""

    tokenizer: str | None = None
    """Folder or Hub id of a tokenizer, or `train`: a new byte-level BPE, trained on the training split.
    Default: that of init_from, else `train`."""
    tokenizer_vocab_size: int = 2048
    """Ids of a newly trained tokenizer, added tokens not counted."""
    tokenizer_split_digits: bool = False
    """Whether a newly trained tokenizer makes a token of each digit: the model sees what a number is made of."""
    added_tokens: list[str] = field(default_factory=list)
    """Pieces of text that become one token wherever they stand, also within words, e.g. --added_tokens '["Lindale"]'.
    Their embeddings begin at the mean of the others in a model from init_from."""
    added_special_tokens: list[str] = field(default_factory=list)
    """Tokens that text never becomes, for a later use such as a chat template, e.g. ["<|im_start|>", "<|im_end|>"]."""
    block_size: int = 256
    """Tokens in one example; at most the model's max_position_embeddings."""
    stride: int | None = None
    """Tokens from one example's start to the next one's. Default: block_size, so that none is learned twice."""
    document_separator: Literal["end_of_text", "none"] = "end_of_text"
    """What stands after each document in the packed stream of tokens."""

    init_from: str | None = None
    """Checkpoint to continue from, a folder or Hub id, GPT-2's included. Default: new random weights."""
    model: dict[str, Any] = field(default_factory=dict)
    """Fields of HfGptConfig that differ from GPT-2 small, e.g. --model.hidden_size 384. With init_from: fields that
    change no shape, that is dropouts."""
    attn_implementation: str | None = None
    """Attention function: eager, sdpa, ... Default: transformers' choice."""

    sample_prompts: list[str] = field(default_factory=lambda: [""])
    """Prompts that are continued at each evaluation; the empty one asks for a new document."""
    sample_max_new_tokens: int = 50
    """Length of these continuations."""
    ngram_baselines: list[int] = field(default_factory=list)
    """Orders of n-gram models to compare with on the same split, e.g. [2, 5]."""

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer after defaults: a folder, a Hub id, or `train`."""
        return self.tokenizer or self.init_from or "train"

    def problems(self) -> list[str]:
        """What cannot work, a sentence each."""
        found = super().problems()
        if not 0 < self.validation_fraction < 1:
            found.append(f"validation_fraction must lie between 0 and 1, but is {self.validation_fraction}.")
        sizes = "block_size stride sample_max_new_tokens max_validation_documents stream_lanes shuffle_buffer_size"
        for name in sizes.split():
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                found.append(f"{name} must be greater than zero, but is {getattr(self, name)}.")
        if self.tokenizer_name == "train" and self.tokenizer_vocab_size < 257:
            found.append(
                f"tokenizer_vocab_size must be at least 257 (256 bytes and {END_OF_TEXT}), "
                f"but is {self.tokenizer_vocab_size}."
            )
        if self.streaming and self.max_steps is None:
            found.append("A stream has no known length: give max_steps in place of num_train_epochs.")
        if self.streaming and self.stride is not None:
            found.append("A stream is cut into blocks without overlap: leave stride out with streaming.")
        if self.streaming and self.split_by == "characters":
            found.append("A stream cannot be split by characters, for its length is not known: split_by documents.")
        if self.streaming and self.tokenizer_name == "train":
            found.append("A stream cannot train a tokenizer: give --tokenizer a folder or Hub id.")
        if self.streaming and self.dataloader_num_workers:
            found.append("A stream is read in the training process: leave dataloader_num_workers at 0 with streaming.")
        if self.streaming and self.ngram_baselines:
            found.append("n-gram baselines need the whole text: leave them out with streaming.")
        if any(order < 1 for order in self.ngram_baselines):
            found.append("ngram_baselines are orders from 1 upwards.")
        found += added_token_problems(self.added_tokens, self.added_special_tokens)
        return found + self._model_problems()

    def _model_problems(self) -> list[str]:
        found = model_field_problems(self.model)
        is_known = not found
        if self.model.get("is_causal") is False:
            found.append(
                "model.is_causal cannot be false here, because each token would see the next one, which it is to "
                "predict: leave it out."
            )
        names = {HfGptConfig.attribute_map.get(name, name) for name in self.model}
        fixed = sorted(name for name in names if not name.endswith("_dropout"))
        if self.init_from and fixed and is_known:
            found.append(f"model.{', model.'.join(fixed)} cannot be changed in a trained checkpoint: leave it out.")
        context_given = self.init_from or {"max_position_embeddings", "n_positions", "n_ctx"} & set(self.model)
        if not context_given and self.sample_max_new_tokens >= self.block_size:
            # The new model's context is one block, and prompt and answer must fit into it together.
            found.append(
                f"sample_max_new_tokens ({self.sample_max_new_tokens}) must be less than block_size "
                f"({self.block_size}), which the prompt must fit into, too: lower it."
            )
        if self.init_from is None and not found:
            try:
                HfGptConfig(**self.model)
            except (ValueError, StrictDataclassError) as error:
                found.append(f"The model cannot be built: {' '.join(str(error).split())}")
        return found
