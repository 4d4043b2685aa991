"""`import hfgpt` registers everything and costs little more than transformers' own Auto classes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

AUTO_CLASSES = "from transformers import AutoConfig, AutoModelForCausalLM"
HEAVY = ["accelerate", "datasets", "evaluate", "matplotlib", "pandas", "pyarrow", "transformers.modeling_utils"]


def modules_after(statements: str) -> set[str]:
    """Names of all modules that a fresh process has imported after these statements."""
    code = f"{statements}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    completed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    return set(json.loads(completed.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def added() -> set[str]:
    """The modules that `import hfgpt` loads and transformers' Auto classes alone do not."""
    imported = modules_after("import hfgpt")
    assert "hfgpt" in imported
    return imported - modules_after(AUTO_CLASSES)


def test_importing_hfgpt_loads_nothing_heavy(added: set[str]) -> None:
    assert not added & {*HEAVY, "hfgpt.modeling_hfgpt"}


def test_importing_hfgpt_adds_few_modules_to_transformers_auto_classes(added: set[str]) -> None:
    assert len(added) <= 20, sorted(added)


WITHOUT_DATA = {
    "the model": "import hfgpt.modeling_hfgpt, hfgpt.conversion_hfgpt, hfgpt.configuration_hfgpt",
    "generation": "import hfgpt.serving.generation, hfgpt.serving.loading",
    "hfgpt generate": "import hfgpt.cli.main, hfgpt.cli.generate",
    "hfgpt convert": "import hfgpt.cli.main, hfgpt.cli.convert",
    "the benchmark": f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import train_step",
}


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_what_needs_no_text_to_train_on_imports_neither_datasets_nor_evaluate(name: str) -> None:
    # Whether a machine that has neither can run them, `make test-oldest` shows.
    assert not modules_after(WITHOUT_DATA[name]) & {"datasets", "evaluate"}


def test_the_auto_classes_know_the_model_as_soon_as_hfgpt_is_imported() -> None:
    statements = """
import hfgpt
from transformers import (
    AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
assert "hfgpt.modeling_hfgpt" not in __import__("sys").modules
config = AutoConfig.for_model(
    "hfgpt", vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=4
)
assert type(config) is hfgpt.HfGptConfig
assert type(AutoModel.from_config(config)) is hfgpt.HfGptModel
assert type(AutoModelForCausalLM.from_config(config)) is hfgpt.HfGptForCausalLM
assert type(AutoModelForSequenceClassification.from_config(config)) is hfgpt.HfGptForSequenceClassification
assert hfgpt.HfGptConfig in MODEL_FOR_CAUSAL_LM_MAPPING
assert MODEL_FOR_CAUSAL_LM_MAPPING[hfgpt.HfGptConfig] is hfgpt.HfGptForCausalLM
try:
    AutoModelForMaskedLM.from_config(config)
except ValueError as error:
    assert "HfGptConfig" in str(error)
else:
    raise AssertionError("there is no masked language model")
AutoModelForCausalLM.register(hfgpt.HfGptConfig, hfgpt.HfGptForCausalLM, exist_ok=True)  # registering again is harmless
"""
    assert "hfgpt.modeling_hfgpt" in modules_after(statements)


def test_every_public_name_exists_and_an_unknown_one_is_an_attribute_error() -> None:
    import hfgpt

    for name in hfgpt.__all__:
        assert getattr(hfgpt, name) is not None
    with pytest.raises(AttributeError, match="HfGptForMaskedLM"):
        _ = hfgpt.HfGptForMaskedLM
