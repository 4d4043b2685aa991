"""What a frozen trunk makes of each text, computed once and read again in every epoch.

The states of all texts stand in one file, row after row, in the order of the texts:

    output_dir/trunk_states-KEY.bin

A text has a row of `hidden_size` numbers for each token (where the head alone is trained, one in all), so its place
follows from the lengths of those before it. The key is a hash of all that the numbers depend on; the file gets its name
when it is whole. So a run that is resumed finds it again, and another trunk, text or number format never does.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import xxhash
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from tqdm import tqdm

from hfgpt import HfGptConfig, __version__
from hfgpt.errors import UserError
from hfgpt.training.disk import existing_part
from hfgpt.training.processes import on_main_process
from hfgpt.training.task import Batch

from .finetuned_classifier import FinetunedClassifier

__all__ = ["CacheDecision", "CachedTexts", "TrunkStates", "cache_trunk_states", "collate_states", "decide_cache"]

TOKENS_AT_ONCE = 4096  # padding counted in: enough to keep a device busy, and little memory without gradients
SHARE_OF_FREE_SPACE = 0.5  # what `auto` takes at most, for checkpoints come after


class _Shape(NamedTuple):
    """How the states of some texts lie in their file."""

    starts: np.ndarray
    """Row at which each text begins, and the number of rows as the last entry; `(texts + 1,)`."""
    width: int
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return int(self.starts[-1]) * self.width * self.dtype.itemsize


class CacheDecision(NamedTuple):
    """Whether the trunk's states are kept, and why."""

    use: bool
    reason: str


def decide_cache(
    cache_frozen: Literal["auto", "true", "false"],
    classifier: FinetunedClassifier,
    texts: Sequence[Tensor],
    folder: Path,
    accelerator: Accelerator,
) -> CacheDecision:
    """Whether to keep what the trunk makes of `texts`; the same on every process, all of which must ask.

    Args:
        cache_frozen: `"false"` keeps nothing, `"true"` whatever fits on the disk, `"auto"` what takes no more than
            half of its free space, or is there already.
        texts: Token ids `(tokens,)` of each.
        folder: Where the file is to stand; it need not exist yet.

    Raises:
        UserError: If the states are to be kept, and there are none, or they do not fit on the disk.
    """
    if classifier.num_frozen_blocks is None:
        if cache_frozen == "true":
            raise UserError(
                f"cache_frozen is true, but with trainable = {classifier.trainable!r} no part of the model is frozen "
                "that could be computed once: set it to auto, or train a part of the model."
            )
        return CacheDecision(False, "frozen part: none")
    if cache_frozen == "false":
        return CacheDecision(False, "frozen part: computed anew in every epoch (cache_frozen is false)")
    if classifier.num_frozen_blocks == 0 and cache_frozen == "auto":
        return CacheDecision(False, "frozen part: the embeddings alone, which are looked up as quickly as a file is")
    shape = _shape(classifier, texts, accelerator)
    path = _path(classifier, texts, shape, folder, accelerator)

    def decide() -> CacheDecision:
        if _is_whole(path, shape):
            return CacheDecision(True, f"frozen part: read from {path}, where it was computed before")
        existing = existing_part(folder)
        free = shutil.disk_usage(existing).free
        sizes = f"{_readable(shape.num_bytes)} of the {_readable(free)} that are free at {existing}"
        if cache_frozen == "true" and shape.num_bytes > free:
            raise UserError(
                f"cache_frozen is true, but what the frozen part makes of {len(texts):,} texts takes {sizes}: set it "
                "to false, lower max_length, or put output_dir on another disk."
            )
        if cache_frozen == "auto" and shape.num_bytes > SHARE_OF_FREE_SPACE * free:
            return CacheDecision(
                False, f"frozen part: computed anew in every epoch, for a cache would take {sizes}, more than half"
            )
        return CacheDecision(True, f"frozen part: computed once and kept in {path}, {sizes}")

    return on_main_process(accelerator, decide)


class TrunkStates(Sequence[Tensor]):
    """The states of all texts, read from their memory-mapped file as they are asked for.

    Item i is `(tokens, hidden)`, or `(hidden,)` where the head alone is trained.
    """

    def __init__(self, path: Path, shape: _Shape, one_row_each: bool) -> None:
        self.path, self._shape, self._one_row_each = path, shape, one_row_each
        # Bytes, for NumPy has no bfloat16.
        row = (shape.width * shape.dtype.itemsize,)
        self._rows = np.memmap(path, dtype=np.uint8, mode="r", shape=(int(shape.starts[-1]), *row))

    def __len__(self) -> int:
        return len(self._shape.starts) - 1

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # no slices
        if not 0 <= index < len(self):
            raise IndexError(f"text {index} of {len(self)}")
        start, end = self._shape.starts[index : index + 2]
        states = torch.from_numpy(np.array(self._rows[start:end])).view(self._shape.dtype)
        return states[0] if self._one_row_each else states

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens the file itself instead of receiving a copy of it.
        return {"path": self.path, "shape": self._shape, "one_row_each": self._one_row_each}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class CachedTexts(Dataset[dict[str, Any]]):
    """Examples with `trunk_states` in place of their `input_ids`.

    Args:
        examples: Those whose texts were given to `cache_trunk_states`, or some that stood together among them.
        states: What came back.
        first: Number of the first of these examples among those texts.
    """

    def __init__(self, examples: Dataset, states: TrunkStates, first: int = 0) -> None:
        self.examples, self.states, self.first = examples, states, first

    def __len__(self) -> int:
        return len(self.examples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = {name: value for name, value in self.examples[index].items() if name != "input_ids"}
        return {**example, "trunk_states": self.states[self.first + index]}


def collate_states(examples: Sequence[dict[str, Any]]) -> Batch:
    """Examples of `CachedTexts` as a batch for `FinetunedClassifier`, padded on the right to the longest of its texts.

    Returns:
        `trunk_states` `(batch, tokens, hidden)`, `attention_mask` `(batch, tokens)` and `labels` `(batch,)`; where the
        head alone is trained, `trunk_states` `(batch, hidden)` and no mask.
    """
    states = [example["trunk_states"] for example in examples]
    labels = torch.tensor([int(example["label"]) for example in examples])
    if states[0].ndim == 1:
        return {"trunk_states": torch.stack(states), "labels": labels}
    ones = [torch.ones(len(text), dtype=torch.long) for text in states]
    return {
        "trunk_states": pad_sequence(states, batch_first=True),
        "attention_mask": pad_sequence(ones, batch_first=True),
        "labels": labels,
    }


def cache_trunk_states(
    classifier: FinetunedClassifier, texts: Sequence[Tensor], folder: Path, accelerator: Accelerator
) -> TrunkStates:
    """Compute the states of all texts, unless their file is there already; every process computes its share.

    Each batch holds texts of similar length, and is the same on any number of processes, which must see one disk.

    Args:
        classifier: Its trunk is what counts; on the accelerator's device.
        texts: Token ids `(tokens,)` of each, one or more.
        folder: Where the file stands.

    Raises:
        UserError: If the disk is full, in which case nothing is left there.
    """
    shape = _shape(classifier, texts, accelerator)
    path = _path(classifier, texts, shape, folder, accelerator)
    unfinished = path.with_name(f".{path.name}.unfinished")

    def begin() -> bool:
        if _is_whole(path, shape):
            return False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.truncate(shape.num_bytes)
        except OSError as error:
            raise _cannot_be_kept(folder, error.strerror or str(error)) from error
        return True

    if on_main_process(accelerator, begin):
        _compute_or_nothing(classifier, texts, shape, unfinished, accelerator)
        on_main_process(accelerator, lambda: unfinished.replace(path))
    return TrunkStates(path, shape, one_row_each=classifier.trainable == "head")


def _compute_or_nothing(
    classifier: FinetunedClassifier, texts: Sequence[Tensor], shape: _Shape, unfinished: Path, accelerator: Accelerator
) -> None:
    """Every process's share; what one cannot write ends them all with one sentence, and nothing is left."""
    reason = None
    try:
        _compute(classifier, texts, shape, unfinished, accelerator)
    except OSError as error:
        reason = error.strerror or str(error)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    reasons = list(filter(None, gather_object([reason])))  # when all have written their share, too

    def refuse() -> None:
        unfinished.unlink()
        raise _cannot_be_kept(unfinished.parent, reasons[0])

    if reasons:
        on_main_process(accelerator, refuse)


def _cannot_be_kept(folder: Path, reason: str) -> UserError:
    return UserError(
        f"What the frozen part makes of the texts cannot be kept in {folder} ({reason}): set cache_frozen to false, "
        "lower max_length, or make room."
    )


def _compute(
    classifier: FinetunedClassifier, texts: Sequence[Tensor], shape: _Shape, path: Path, accelerator: Accelerator
) -> None:
    lengths = [len(text) for text in texts]
    batches = _batches_by_length(lengths)[accelerator.process_index :: accelerator.num_processes]
    row_bytes = shape.width * shape.dtype.itemsize
    # Written as a file, not as a memory map, of which a full disk would kill the process.
    with (
        path.open("r+b") as file,
        tqdm(
            total=sum(lengths[index] for batch in batches for index in batch),
            desc="Computing the frozen part",
            unit="token",
            unit_scale=True,
            disable=not accelerator.is_main_process,
            dynamic_ncols=True,
        ) as bar,
    ):
        for batch in batches:
            states = _states(classifier, [texts[index] for index in batch], accelerator).cpu()
            for index, text in zip(batch, states, strict=True):
                rows = text[: shape.starts[index + 1] - shape.starts[index]] if text.ndim == 2 else text
                file.seek(int(shape.starts[index]) * row_bytes)
                file.write(rows.contiguous().view(torch.uint8).numpy().tobytes())
            bar.update(sum(lengths[index] for index in batch))
        file.flush()
        os.fsync(file.fileno())  # or a loss of power could leave a whole name on a file of zeros


def _states(classifier: FinetunedClassifier, texts: Sequence[Tensor], accelerator: Accelerator) -> Tensor:
    """The trunk's states of a few texts, in the number format of training."""
    input_ids = pad_sequence([torch.as_tensor(text) for text in texts], batch_first=True)
    ones = [torch.ones(len(text), dtype=torch.long) for text in texts]
    attention_mask = pad_sequence(ones, batch_first=True)
    with accelerator.autocast():
        return classifier.trunk_states(input_ids.to(accelerator.device), attention_mask.to(accelerator.device))


def _batches_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """The texts from the shortest to the longest, cut where one more would make it too many tokens."""
    batches: list[list[int]] = [[]]
    for index in np.argsort(lengths, kind="stable").tolist():
        if batches[-1] and (len(batches[-1]) + 1) * lengths[index] > TOKENS_AT_ONCE:
            batches.append([])
        batches[-1].append(index)
    return batches


def _shape(classifier: FinetunedClassifier, texts: Sequence[Tensor], accelerator: Accelerator) -> _Shape:
    shortest = min(texts, key=len)
    found = _states(classifier, [shortest], accelerator)  # the trunk itself says of which type they are
    rows = [1 if found.ndim == 2 else len(text) for text in texts]
    return _Shape(np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]), found.shape[-1], found.dtype)


def _path(
    classifier: FinetunedClassifier, texts: Sequence[Tensor], shape: _Shape, folder: Path, accelerator: Accelerator
) -> Path:
    """Where the states of these texts stand, by a hash of all that they depend on."""
    model = classifier.model
    settings = {
        "version": __version__,
        "torch": torch.__version__,
        "device": accelerator.device.type,
        "attention": model.config._attn_implementation,
        "mixed precision": accelerator.mixed_precision,
        "dtype": str(shape.dtype),
        "frozen blocks": classifier.num_frozen_blocks,
        "model": {name: repr(getattr(model.config, name)) for name in sorted(HfGptConfig.__annotations__)},
        "lengths": [len(text) for text in texts],
    }
    digest = xxhash.xxh3_128(repr(settings).encode())
    for text in texts:
        digest.update(torch.as_tensor(text, dtype=torch.int64).numpy().tobytes())
    for name, weight in model.named_parameters():
        if not weight.requires_grad:  # the trunk's
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())  # type: ignore[arg-type]
    return folder / f"trunk_states-{digest.hexdigest()}.bin"


def _is_whole(path: Path, shape: _Shape) -> bool:
    return path.is_file() and path.stat().st_size == shape.num_bytes


def _readable(num_bytes: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
