"""A trunk's states are computed once, are those of the trunk, and change nothing but the time."""

import errno
import io
import math
import multiprocessing
import os
import pickle
import re
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset

from hfgpt import HfGptConfig, HfGptForSequenceClassification
from hfgpt.errors import UserError
from hfgpt.recipes import frozen_cache
from hfgpt.recipes.finetuned_classifier import FinetunedClassifier
from hfgpt.recipes.frozen_cache import CachedTexts, TrunkStates, cache_trunk_states, collate_states, decide_cache
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback
from hfgpt.training.task import Batch, Task

MakeConfig = Callable[..., HfGptConfig]


@pytest.fixture(scope="module")
def texts() -> list[Tensor]:
    """Token ids of 40 texts of 1 to 20 tokens."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 21, (40,), generator=generator).tolist()
    return [torch.randint(97, (length,), generator=generator) for length in lengths]


@pytest.fixture
def accelerator(tmp_path: Path) -> Any:
    return start_accelerator(TrainingConfig(output_dir=str(tmp_path / "run"), max_steps=1))


def classifier(
    tiny_config: MakeConfig, trainable: str = "last_block", *, seed: int = 0, dtype: torch.dtype = torch.float32,
    **fields: Any,
) -> FinetunedClassifier:  # fmt: skip
    torch.manual_seed(seed)
    config = tiny_config(num_hidden_layers=3, initializer_range=0.1, num_labels=2, **fields)
    return FinetunedClassifier(HfGptForSequenceClassification(config).to(dtype), trainable)


# --- What is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("trainable", ["head", "last_block", "last_n_blocks"])
def test_each_text_s_states_are_those_of_the_trunk(
    tiny_config: MakeConfig, texts, accelerator, tmp_path, trainable: str, dtype: torch.dtype
) -> None:
    made = classifier(tiny_config, trainable, dtype=dtype)
    states = cache_trunk_states(made, texts, tmp_path / "cache", accelerator)
    assert len(states) == len(list(states)) == len(texts)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    for text, kept in zip(texts, states, strict=True):
        expected = made.trunk_states(text[None])[0]
        assert (kept.shape, kept.dtype) == (expected.shape, dtype)
        assert_close(kept, expected, rtol=0, atol=tolerance)
    (path,) = (tmp_path / "cache").iterdir()
    rows = len(texts) if trainable == "head" else sum(map(len, texts))
    assert path.stat().st_size == rows * 32 * dtype.itemsize


def test_examples_and_batches_hold_states_in_place_of_tokens(tiny_config: MakeConfig, texts, accelerator, tmp_path):
    examples = [{"index": i, "input_ids": text, "label": i % 2} for i, text in enumerate(texts)]
    made = classifier(tiny_config)
    states = cache_trunk_states(made, texts, tmp_path, accelerator)
    second_half = CachedTexts(examples[20:], states, first=20)
    assert len(second_half) == 20
    assert second_half[3].keys() == {"index", "label", "trunk_states"}
    assert (second_half[3]["index"], second_half[3]["label"]) == (23, 1)
    assert torch.equal(second_half[3]["trunk_states"], states[23])
    batch = collate_states([second_half[i] for i in range(4)])
    lengths = [len(text) for text in texts[20:24]]
    assert batch["trunk_states"].shape == (4, max(lengths), 32)
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["labels"].tolist() == [0, 1, 0, 1]
    head_alone = classifier(tiny_config, "head")
    states = cache_trunk_states(head_alone, texts, tmp_path, accelerator)
    batch = collate_states([CachedTexts(examples, states)[i] for i in range(4)])
    assert {name: value.shape for name, value in batch.items()} == {"trunk_states": (4, 32), "labels": (4,)}


def test_worker_processes_open_the_file_themselves(tiny_config: MakeConfig, texts, accelerator, tmp_path) -> None:
    states = cache_trunk_states(classifier(tiny_config), texts, tmp_path, accelerator)
    pickled = pickle.dumps(states)
    assert len(pickled) < states.path.stat().st_size / 4
    for text, again in zip(states, pickle.loads(pickled), strict=True):
        assert torch.equal(text, again)
    examples: Any = [{"input_ids": text, "label": 0} for text in texts]
    loader = DataLoader(
        CachedTexts(examples, states), 8, collate_fn=collate_states, num_workers=2, multiprocessing_context="fork"
    )
    assert sum(int(batch["attention_mask"].sum()) for batch in loader) == sum(map(len, texts))


def test_reading_leaves_the_file_as_it_is(tiny_config: MakeConfig, texts, accelerator, tmp_path) -> None:
    states = cache_trunk_states(classifier(tiny_config), texts, tmp_path, accelerator)
    before = states.path.read_bytes()
    states[0].zero_()
    assert states.path.read_bytes() == before
    with pytest.raises(IndexError):
        states[len(texts)]


def test_batches_hold_texts_of_similar_length_and_not_too_many_tokens() -> None:
    lengths = [7, 1, 3000, 2000, 2000, 5, 5000, 1]
    batches = frozen_cache._batches_by_length(lengths)
    assert batches == [[1, 7, 5, 0], [3, 4], [2], [6]]
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= frozen_cache.TOKENS_AT_ONCE


# --- When it is computed ----------------------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each computation was for."""
    calls: list[int] = []
    compute = frozen_cache._compute

    def counted(classifier: Any, texts: Sequence[Tensor], *arguments: Any) -> None:
        calls.append(len(texts))
        compute(classifier, texts, *arguments)

    monkeypatch.setattr(frozen_cache, "_compute", counted)
    return calls


def test_a_resumed_run_finds_what_was_computed_and_another_trunk_does_not(
    tiny_config: MakeConfig, texts, accelerator, tmp_path, computed
) -> None:
    def cache(made: FinetunedClassifier, which: Sequence[Tensor] = texts) -> TrunkStates:
        return cache_trunk_states(made, which, tmp_path, accelerator)

    made = classifier(tiny_config)
    first = cache(made)
    # What training changes, and what a checkpoint and new class names change of the configuration.
    for parameter in made.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    made.model.save_pretrained(tmp_path / "checkpoint")
    resumed = HfGptForSequenceClassification.from_pretrained(tmp_path / "checkpoint", id2label={0: "ham", 1: "spam"})
    assert cache(FinetunedClassifier(resumed)).path == first.path
    assert computed == [40]

    others = [
        classifier(tiny_config, seed=1),
        classifier(tiny_config, dtype=torch.bfloat16),
        classifier(tiny_config, "last_n_blocks"),
        classifier(tiny_config, attn_implementation="eager"),
        classifier(tiny_config, sliding_window=3),
        classifier(tiny_config, "head"),
        classifier(tiny_config, "head", classifier_pooling="mean"),
    ]
    paths = {cache(other).path for other in others}
    changed = [text.clone() for text in texts]
    changed[5][0] = (changed[5][0] + 1) % 97
    paths |= {cache(made, changed).path, cache(made, texts[1:]).path}
    nudged = classifier(tiny_config)
    with torch.no_grad():
        nudged.model.model.layers[1].mlp.fc2.bias[3] += 1e-6
    paths.add(cache(nudged).path)
    assert len(paths | {first.path}) == 11
    assert len(computed) == 11


def test_a_file_that_is_cut_short_is_computed_again(tiny_config: MakeConfig, texts, accelerator, tmp_path, computed):
    states = cache_trunk_states(classifier(tiny_config), texts, tmp_path, accelerator)
    whole = states.path.read_bytes()
    states.path.write_bytes(whole[:-1])
    assert cache_trunk_states(classifier(tiny_config), texts, tmp_path, accelerator).path.read_bytes() == whole
    assert computed == [40, 40]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), (UserError, "No space left on device")),
        (KeyboardInterrupt(), (KeyboardInterrupt, None)),
    ],
    ids=["full disk", "interrupt"],
)
def test_what_is_not_whole_is_not_there(
    tiny_config: MakeConfig, texts, accelerator, tmp_path, monkeypatch, error, expected
) -> None:
    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 3000:
                raise error
            return super().write(data)

    real_open = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r", **options: Full(self, "r+") if mode == "r+b" else real_open(self, mode)
    )
    with pytest.raises(expected[0], match=expected[1]) as raised:
        cache_trunk_states(classifier(tiny_config), texts, tmp_path / "cache", accelerator)
    assert "\n" not in str(raised.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tiny_config: MakeConfig, texts, accelerator, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be kept in .*file/cache \(Not a directory\)"):
        cache_trunk_states(classifier(tiny_config), texts, tmp_path / "file" / "cache", accelerator)


# --- Whether it is kept -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache_frozen", "free_per_byte", "use", "reason"),
    [
        ("auto", 2.1, True, "computed once and kept in .*trunk_states-"),
        ("auto", 1.9, False, "computed anew in every epoch, for a cache would take .* kB .*, more than half"),
        ("true", 1.1, True, "computed once"),
        ("false", 100, False, "cache_frozen is false"),
    ],
)
def test_auto_takes_at_most_half_of_what_is_free(
    tiny_config: MakeConfig, texts, accelerator, tmp_path, monkeypatch, cache_frozen, free_per_byte, use, reason
) -> None:
    size = sum(map(len, texts)) * 32 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=math.ceil(free_per_byte * size)))
    folder = tmp_path / "not" / "yet"
    decision = decide_cache(cache_frozen, classifier(tiny_config), texts, folder, accelerator)
    assert decision.use == use
    assert re.search(reason, decision.reason)
    assert not folder.exists()


def test_more_than_the_disk_holds_is_refused_if_it_was_asked_for(
    tiny_config: MakeConfig, texts, accelerator, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="of 40 texts takes .* kB of the 1 kB") as error:
        decide_cache("true", classifier(tiny_config), texts, tmp_path, accelerator)
    assert "\n" not in str(error.value)


def test_what_is_there_already_is_used_however_full_the_disk_is(
    tiny_config: MakeConfig, texts, accelerator, tmp_path, monkeypatch
) -> None:
    made = classifier(tiny_config)
    cache_trunk_states(made, texts, tmp_path, accelerator)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    for cache_frozen in ("auto", "true"):
        decision = decide_cache(cache_frozen, made, texts, tmp_path, accelerator)
        assert decision.use
        assert "computed before" in decision.reason


def test_where_nothing_is_frozen_nothing_is_kept(tiny_config: MakeConfig, texts, accelerator, tmp_path) -> None:
    for trainable in ("all", "lora"):
        made = classifier(tiny_config, trainable)
        assert not decide_cache("auto", made, texts, tmp_path, accelerator).use
        with pytest.raises(UserError, match=f"trainable = '{trainable}' no part of the model is frozen"):
            decide_cache("true", made, texts, tmp_path, accelerator)
    torch.manual_seed(0)
    model = HfGptForSequenceClassification(tiny_config(num_labels=2))
    embeddings = FinetunedClassifier(model, "last_n_blocks", num_trainable_blocks=2)
    decision = decide_cache("auto", embeddings, texts, tmp_path, accelerator)
    assert not decision.use
    assert "embeddings" in decision.reason


# --- Training with it -------------------------------------------------------------------------------------------------


class Texts(Dataset):
    def __init__(self, texts: Sequence[Tensor]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, "input_ids": self.texts[index], "label": int(self.texts[index][0]) % 2}


class Classify(Task):
    """With the cache or without."""

    unit = "texts"

    def __init__(self, texts: Sequence[Tensor], states: TrunkStates | None) -> None:
        train, validation = Texts(texts[:32]), Texts(texts[32:])
        self.cached = states is not None
        if states is None:
            self.train_examples, self.validation_examples = train, validation
        else:
            self.train_examples = CachedTexts(train, states)
            self.validation_examples = CachedTexts(validation, states, first=32)

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        if self.cached:
            return collate_states(examples)
        lengths = [len(example["input_ids"]) for example in examples]
        input_ids = torch.nn.utils.rnn.pad_sequence([example["input_ids"] for example in examples], batch_first=True)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        labels = torch.tensor([example["label"] for example in examples])
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}

    def count_targets(self, batch: Batch) -> int:
        return len(batch["labels"])


class Losses(Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_step(self, run: Any, report: Any) -> None:
        self.losses.append(report.loss)


@pytest.mark.parametrize("pooling", ["last_token", "mean"])
@pytest.mark.parametrize("trainable", ["head", "last_block", "last_n_blocks"])
def test_a_whole_training_has_the_same_losses_with_the_cache_and_without(
    tiny_config: MakeConfig, texts, tmp_path, trainable: str, pooling: str
) -> None:
    # See tests/training/conftest.py on the epsilon.
    config = TrainingConfig(
        output_dir=str(tmp_path), num_train_epochs=5, global_batch_size=8, learning_rate=3e-3, adam_epsilon=1e-3
    )
    found = []
    for cached in (False, True):
        made = classifier(tiny_config, trainable, classifier_pooling=pooling)
        accelerator = start_accelerator(config)
        states = cache_trunk_states(made, texts, tmp_path, accelerator) if cached else None
        losses = Losses()
        run = train(Classify(texts, states), made, config, accelerator, [losses])
        found.append(losses.losses + [evaluation.metrics["loss"] for evaluation in run.evaluations])
    assert len(found[0]) == 20 + 2
    assert sum(found[0][16:20]) < sum(found[0][:4]) - 0.02  # it learns
    assert_close(torch.tensor(found[1]), torch.tensor(found[0]), rtol=0, atol=1e-5)


# --- Two processes ----------------------------------------------------------------------------------------------------

TWO_PROCESSES = """
import os
os.environ.update(environment)
import torch
torch.set_num_threads(1)
from pathlib import Path
from hfgpt import HfGptConfig, HfGptForSequenceClassification
from hfgpt.errors import UserError
from hfgpt.recipes import frozen_cache
from hfgpt.recipes.finetuned_classifier import FinetunedClassifier
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator

frozen_cache.TOKENS_AT_ONCE = 40
accelerator = start_accelerator(TrainingConfig(output_dir=folder, max_steps=1))
made = FinetunedClassifier(HfGptForSequenceClassification.from_pretrained(model))
seen = []
trunk_states = made.trunk_states
made.trunk_states = lambda ids, mask: seen.append(int(mask.sum())) or trunk_states(ids, mask)
path = Path(folder) / f"seen-{accelerator.process_index}.txt"
if full and accelerator.process_index == 1:
    def compute(*arguments):
        raise OSError(28, "No space left on device")
    frozen_cache._compute = compute
try:
    assert frozen_cache.decide_cache("auto", made, texts, Path(cache), accelerator).use
    seen.clear()
    frozen_cache.cache_trunk_states(made, texts, Path(cache), accelerator)
    path.write_text(str(sum(seen[1:])))  # the first was the question for the type
except UserError as error:
    path.write_text(f"{type(error).__name__}: {error}")
"""


def run_two_processes(tmp_path: Path, texts: list[Tensor], *, full: bool) -> list[str]:
    """What each process wrote: the tokens that it has computed, or its error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
    context = multiprocessing.get_context("spawn")
    processes = []
    for rank in range(2):
        names = {
            "environment": common | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)),
            "folder": str(tmp_path),
            "model": str(tmp_path / "model"),
            "cache": str(tmp_path / "cache"),
            "texts": [text.tolist() for text in texts],
            "full": full,
        }
        processes.append(context.Process(target=exec, args=(TWO_PROCESSES, names)))
        processes[-1].start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return [(tmp_path / f"seen-{rank}.txt").read_text() for rank in range(2)]


def test_two_processes_compute_a_share_each_of_one_file(
    tiny_config: MakeConfig, texts, accelerator, tmp_path, monkeypatch
) -> None:
    classifier(tiny_config).model.save_pretrained(tmp_path / "model")
    shares = [int(tokens) for tokens in run_two_processes(tmp_path, texts, full=False)]
    assert sum(shares) == sum(map(len, texts))
    assert min(shares) > sum(shares) / 3
    monkeypatch.setattr(frozen_cache, "TOKENS_AT_ONCE", 40)
    (path,) = (tmp_path / "cache").iterdir()
    alone = cache_trunk_states(classifier(tiny_config), texts, tmp_path / "alone", accelerator)
    assert alone.path.name == path.name
    expected = torch.cat(list(alone))
    found = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.float32).view_as(expected)
    assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_disk_that_is_full_for_one_process_ends_both(tiny_config: MakeConfig, texts, tmp_path) -> None:
    classifier(tiny_config).model.save_pretrained(tmp_path / "model")
    first, second = run_two_processes(tmp_path, texts, full=True)
    assert first.startswith("UserError: ")
    assert second.startswith("ToldElsewhereError: ")
    assert "No space left on device" in first
    assert list((tmp_path / "cache").iterdir()) == []
