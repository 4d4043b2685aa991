"""The cards in model_cards/ are those that their facts give, and the facts are of the demo as it is configured."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hfgpt.hub.facts import hyperparameters
from hfgpt.recipes.classification_config import ClassificationConfig
from hfgpt.recipes.configuration import parse_config
from hfgpt.recipes.instruction_config import InstructionConfig
from hfgpt.recipes.pretrain_config import PretrainConfig

CARDS = Path(__file__).parents[2] / "model_cards"
CONFIGS = {"pretrain": PretrainConfig, "classify_train": ClassificationConfig, "instruct": InstructionConfig}
RECIPES = {"hfgpt-demo": "pretrain", "hfgpt-demo-classifier": "classify_train", "hfgpt-demo-assistant": "instruct"}


@pytest.fixture(scope="module")
def make_cards() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_cards", CARDS / "make_cards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=list(RECIPES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def facts_of(name: str) -> dict[str, Any]:
    return json.loads((CARDS / "facts" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_card_is_what_its_facts_give(make_cards: ModuleType) -> None:
    stale = [
        str(path.relative_to(CARDS))
        for path, text in make_cards.expected_cards().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"stale: {', '.join(stale)}; run `make cards` and look at what has changed"


def test_the_facts_are_of_the_demo_as_it_is_configured(name: str) -> None:
    recipe = RECIPES[name]
    changed, defaults = hyperparameters(parse_config(recipe, CONFIGS[recipe], "", ["--config", "demo"]))
    recorded = facts_of(name)["hyperparameters"]
    now = {field: defaults.get(field) for field in recorded["defaults"]}  # one that is new since has changed nothing
    assert recorded == {"changed": changed, "defaults": now}, (
        "the demo's configuration has changed since the card was made: run `make demo`, then "
        "`python model_cards/make_cards.py --from runs`"
    )


def test_the_three_are_one_family_from_one_clean_checkout() -> None:
    base, *children = map(facts_of, RECIPES)
    for child in children:
        assert child["lineage"]["parent"]["weights"] == base["weights"]["sha256"]
        assert child["versions"] == base["versions"]
    assert not any(facts_of(name)["git"]["changed_since"] for name in RECIPES)


def test_cards_are_valid_and_all_that_they_link_to_is_there(name: str) -> None:
    path = CARDS / name / "README.md"
    card = ModelCard.load(path)
    assert card.data.eval_results
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "transformers")
    for link in re.findall(r"\]\(((?!http).*?)\)", card.text):
        assert (path.parent / link).is_file(), link


def test_other_random_weights_are_the_only_difference_that_may_be_compared(make_cards: ModuleType) -> None:
    facts = facts_of("hfgpt-demo-classifier")
    other = json.loads(json.dumps(facts))
    with pytest.raises(ValueError, match="run the demo again"):
        make_cards.with_comparison(facts, other)
    other["hyperparameters"]["changed"]["random_weights"] = True
    rows = make_cards.with_comparison(facts, other)["evaluation"][0]["rows"]
    assert rows[-2]["name"] == "the same training from random weights"
    assert rows[-1]["this_model"]


def test_the_folder_s_own_pages_link_to_what_is_there() -> None:
    for page in ("README.md", "CHECKLIST.md"):
        for link in re.findall(r"\]\(((?!http).*?)\)", (CARDS / page).read_text(encoding="utf-8")):
            assert (CARDS / link).exists(), link
