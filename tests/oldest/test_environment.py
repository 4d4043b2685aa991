"""The oldest environment is what it says, and the commands that need a model only work in it.

`make test-oldest` makes that environment and runs this folder in it, after the model's own tests.
"""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.tokenization import train_tokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# only data, recipes and pushing need them
ABSENT = {"datasets", "detect-secrets", "evaluate", "pyarrow", "scikit-learn", "scipy"}
ABOVE_ITS_BOUND = {"torch": "2.13.0"}


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "requirements-oldest.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in requirements}


def lower_bounds(requirements: list[str]) -> dict[str, tuple[int, ...]]:
    bounds = {}
    for each in map(Requirement, requirements):
        (bound,) = (specifier.version for specifier in each.specifier if specifier.operator == ">=")
        bounds[canonicalize_name(each.name)] = release(bound)
    return bounds


def release(version: str) -> tuple[int, ...]:
    """2.0 and 2.0.0 are the same release."""
    numbers = [int(number) for number in version.partition("+")[0].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def test_every_dependency_is_pinned_at_the_lower_bound_that_the_project_claims() -> None:
    bounds = lower_bounds(PROJECT["dependencies"])
    expected = {name: bound for name, bound in bounds.items() if name not in ABSENT}
    expected |= {name: release(version) for name, version in ABOVE_ITS_BOUND.items()}
    pinned = {name: release(version) for name, version in pins().items()}
    assert {name: pinned.get(name) for name in expected} == expected
    of_the_tests = PROJECT["optional-dependencies"]["test"]
    tools = lower_bounds([each for each in of_the_tests if Requirement(each).name != PROJECT["name"]])
    assert {name: pinned[name] for name in pinned.keys() - expected.keys()} == {
        name: tools[name] for name in pinned.keys() - expected.keys()
    }


def test_what_is_pinned_is_what_runs() -> None:
    installed = {name: importlib.metadata.version(name) for name in pins()}
    assert {name: release(version) for name, version in installed.items()} == {
        name: release(version) for name, version in pins().items()
    }


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_what_only_data_recipes_and_pushing_need_is_absent(name: str) -> None:
    assert importlib.util.find_spec(name) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its tokenizer, saved here."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["the cat sat on the mat"] * 9, 262, model_max_length=32)
    torch.manual_seed(0)
    fields = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    HfGptForCausalLM(HfGptConfig(vocab_size=len(tokenizer), **fields)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def hfgpt(*arguments: str | Path) -> str:
    """What the command prints."""
    command = [Path(sys.executable).parent / "hfgpt", *arguments]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def test_hfgpt_generate_continues_a_prompt(folder: Path) -> None:
    answer = json.loads(hfgpt("generate", "--model", folder, "--prompt", "the cat", "--max-new-tokens", "5", "--json"))
    assert answer["prompt"] == "the cat"


def test_hfgpt_convert_writes_gpt2_s_layout(folder: Path, tmp_path: Path) -> None:
    hfgpt("convert", folder, tmp_path / "gpt2", "--to", "gpt2")
    config = json.loads((tmp_path / "gpt2" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "gpt2"


def test_the_benchmark_of_training_steps_shows_its_help() -> None:
    command = [sys.executable, REPOSITORY / "benchmarks" / "train_step.py", "--help"]
    printed = subprocess.run(command, capture_output=True, timeout=300, check=True, text=True).stdout
    assert "--contenders" in printed
