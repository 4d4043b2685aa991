"""What the tests on a GPU share: that there is one, and the tiny recipes of the other tests without their CPU."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from tests.recipes.conftest import (  # noqa: F401  # fixtures
    checkpoint,
    classify,
    instruct,
    instruction_file,
    labelled_file,
    launch,
    longer_checkpoint,
    recipe,
    text_file,
    tokenizer_folder,
)
from tests.training.conftest import Laboratory


def pytest_sessionstart() -> None:
    if not torch.cuda.is_available():
        pytest.exit("`make test-gpu` needs a GPU that torch can use, and there is none.", returncode=1)


@pytest.fixture(autouse=True)
def one_process_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """accelerate's own choice, which is the GPU; its state and the GPU's memory are cleared."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    for state in (AcceleratorState, GradientState):
        state._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture
def laboratory(tmp_path: Path) -> Laboratory:
    return Laboratory(str(tmp_path))
