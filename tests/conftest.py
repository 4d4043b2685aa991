"""Fixtures that every room of the tests shares."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .hub.fixtures import hub, run_python  # noqa: F401  # for every test

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hfgpt import HfGptConfig

# The tests are of the CPU, whose numbers are equal bit for bit on every machine, and see no CUDA device: said before
# torch looks for one. Those in `gpu` are of a GPU: `make test-gpu` runs them.
if os.environ.get("HFGPT_TEST_GPU"):
    collect_ignore: list[str] = []
else:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    collect_ignore = ["gpu"]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data named by `HFGPT_TEST_DATA`; `.ci/run` always sets it, so nothing is skipped there."""
    folder = os.environ.get("HFGPT_TEST_DATA")
    if not folder:
        pytest.skip("HFGPT_TEST_DATA is not set: this test reads real data")
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        pytest.fail(f"HFGPT_TEST_DATA names {folder}, which is not a folder")
    return path


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., "HfGptConfig"]:
    """A maker of configurations that run in milliseconds; any field can be given another value.

    Weights are drawn ten times as wide as usual, so that an untrained model already prefers some tokens and attends to
    some: what is computed wrongly then shows in its logits, which have a scale of about 5.
    """
    from hfgpt import HfGptConfig

    def make(**changes: Any) -> HfGptConfig:
        fields: dict[str, Any] = {
            "vocab_size": 97,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 32,
            "initializer_range": 0.2,
            "embedding_dropout": 0.0,
            "attention_dropout": 0.0,
            "residual_dropout": 0.0,
        }
        return HfGptConfig(**(fields | changes))

    return make


@pytest.fixture(scope="session")
def random_gpt2() -> Callable[..., "PreTrainedModel"]:
    """A maker of transformers' own GPT-2 models with weights that leave nothing to chance.

    Every parameter is random (biases and LayerNorms too, which GPT-2 would begin at 0 and 1) and scaled such that
    features stay near 1 and the standard deviation of the logits near `logit_scale`.
    """
    import torch
    import transformers

    def make(
        class_name: str = "GPT2LMHeadModel", seed: int = 0, logit_scale: float = 5.0, **changes: Any
    ) -> "PreTrainedModel":
        fields: dict[str, Any] = {
            "vocab_size": 97,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 32,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        model = getattr(transformers, class_name)(transformers.GPT2Config(**(fields | changes))).eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(generator=generator)
                if name.endswith(("wte.weight", "wpe.weight", "lm_head.weight")):
                    parameter.mul_(logit_scale / parameter.shape[1] ** 0.5)
                elif parameter.ndim == 2:
                    parameter.mul_(1 / parameter.shape[0] ** 0.5)  # GPT-2 stores (in, out)
                else:
                    parameter.mul_(0.1).add_(float(".ln_" in name and name.endswith("weight")))
        return model

    return make


# Stands before a script: in its process every import of hfgpt fails.
WITHOUT_HFGPT = """
import sys

class NoHfgpt:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hfgpt":
            raise ModuleNotFoundError("hfgpt is not to be found here")

sys.meta_path.insert(0, NoHfgpt())
try:
    import hfgpt
except ModuleNotFoundError:
    pass
else:
    sys.exit("hfgpt could be imported: this process proves nothing")
"""


@pytest.fixture(scope="session")
def run_without_hfgpt() -> Callable[..., None]:
    """A function that runs a script in a fresh process, offline, where hfgpt cannot be imported; it must succeed.

    Its arguments are the script's text, the folder that it works in (and finds as `sys.argv[1]`), and more arguments.
    """

    def run(script: str, folder: Path, *arguments: str) -> None:
        path = folder / "stranger.py"
        path.write_text(WITHOUT_HFGPT + script)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        completed = subprocess.run(
            [sys.executable, "-I", path, folder, *arguments], cwd=folder, env=environment, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert completed.returncode == 0, completed.stderr

    return run
