"""What a training leaves for the card of its model: true, complete, and with nothing private in it."""

import hashlib
import json
import math
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hfgpt.hub.cards import render_card
from hfgpt.hub.facts_file import read_facts
from hfgpt.recipes import finetune_classification, finetune_instruction, pretrain
from hfgpt.recipes.validation_loss import perplexity

from .conftest import Recipe, answering, classification, labelled_sentences, pretraining

# Small models on generated data, of which a card may show pieces.
STORIES = {"source": "builtin:stories", "tokenizer_vocab_size": 400, "block_size": 96, "sample_prompts": ["One day"]}
MESSAGES = {"source": "builtin:messages", "balance": "downsample"}


def facts_of(recipe: Recipe) -> dict[str, Any]:
    return json.loads((recipe.final / "card_facts.json").read_text(encoding="utf-8"))


def card_of(recipe: Recipe) -> str:
    return (recipe.final / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, fork) -> dict[str, Recipe]:
    """A model pretrained on generated stories, a classifier and an assistant made of it; made once."""
    folder = tmp_path_factory.mktemp("family")
    base = Recipe(pretrain, folder / "base", pretraining(Path("unused")) | STORIES)
    final = base.final
    classifier = Recipe(
        finetune_classification,
        folder / "classifier",
        classification(Path("unused"), final) | MESSAGES | {"max_steps": 2},
    )
    assistant = Recipe(
        finetune_instruction,
        folder / "assistant",
        answering(Path("unused"), final) | {"source": "builtin:instructions", "max_steps": 2, "max_test_examples": 12},
    )
    found = {"base": base, "classifier": classifier, "assistant": assistant}
    for recipe in found.values():
        recipe.folder.mkdir()
        fork(recipe.folder / "fork", recipe.arguments(), recipe=recipe.module.__name__).finish()
    return found


@pytest.fixture(params=["base", "classifier", "assistant"])
def member(request: pytest.FixtureRequest, family: dict[str, Recipe]) -> Recipe:
    return family[request.param]


def test_the_card_is_what_its_facts_give_and_survives_the_way_through_the_hub_s_own_class(member: Recipe) -> None:
    written = card_of(member)
    assert written == str(render_card(read_facts(member.final / "card_facts.json")))
    card = ModelCard.load(member.final / "README.md")
    assert str(card) == written
    assert card.data.eval_results
    assert card.data.license == "apache-2.0"
    assert card.data.language == ["en"]
    assert (member.output_dir / "card_facts.json").read_bytes() == (member.final / "card_facts.json").read_bytes()


def test_every_picture_that_the_card_shows_lies_beside_it(member: Recipe) -> None:
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", card_of(member))
    assert "loss_curve.png" in pictures
    for name in pictures:
        assert (member.final / name).read_bytes() == (member.output_dir / name).read_bytes()


def test_neither_card_nor_facts_say_where_and_by_whom_it_was_made(member: Recipe) -> None:
    text = card_of(member) + (member.final / "card_facts.json").read_text(encoding="utf-8")
    assert str(member.output_dir.parent) not in text
    assert str(Path.home()) + "/" not in text
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)
    assert "base/run/final" not in text  # what was given as an absolute path
    if member.module is not pretrain:
        assert "run/final" in text


def test_the_card_names_the_weights_by_the_hash_that_the_hub_shows(member: Recipe) -> None:
    sha256 = hashlib.sha256((member.final / "model.safetensors").read_bytes()).hexdigest()
    assert facts_of(member)["weights"]["sha256"] == {"model.safetensors": sha256}
    assert sha256 in card_of(member)


def test_numbers_are_those_of_the_run(member: Recipe) -> None:
    facts, results = facts_of(member), json.loads((member.output_dir / "results.json").read_text(encoding="utf-8"))
    assert facts["training"]["steps"] == results["steps"]
    assert facts["model"]["parameters"] == results["parameters"]
    losses = [evaluation["loss"] for evaluation in facts["training"]["validation"]]
    assert losses[0] == results["validation_before"]["loss"]
    assert losses[-1] == results["validation_after"]["loss"]
    table = facts["evaluation"][0]
    own = next(row for row in table["rows"] if row.get("this_model"))
    key, value = {
        "pretrain": ("loss", losses[-1]),
        "classify_train": ("accuracy", results.get("test_accuracy")),
        "instruct": ("exact_match", results.get("test_exact_match", {}).get("value")),
    }[facts["recipe"]]
    assert own["values"][key]["value"] == value
    (index,) = ModelCard.load(member.final / "README.md").data.to_dict()["model-index"]
    assert index["results"][0]["metrics"][0]["value"] == pytest.approx(value, rel=1e-3)


def test_the_line_of_descent_reaches_back_to_random_weights(family: dict[str, Recipe]) -> None:
    base, child = facts_of(family["base"]), facts_of(family["classifier"])
    assert base["lineage"]["parent"] is None
    parent = child["lineage"]["parent"]
    assert parent["weights"] == base["weights"]["sha256"]
    assert parent["facts"]["training"]["targets"] == base["training"]["targets"]
    assert "Random weights" in card_of(family["base"])
    assert "`builtin:stories`" in card_of(family["classifier"])


def test_every_part_of_the_data_has_its_size_and_its_fingerprint(member: Recipe) -> None:
    for part in facts_of(member)["data"][0]["parts"]:
        assert part["examples"] > 0
        assert part["tokens"] > part["examples"]
        assert re.fullmatch(r"[0-9a-f]{16}", part["fingerprint"])


def test_only_what_differs_from_the_defaults_is_listed_before_the_fold(member: Recipe) -> None:
    found = facts_of(member)["hyperparameters"]
    given = set(member.fields) - {"output_dir"}
    assert set(found["changed"]) <= given | {"max_steps"}
    assert {"seed", "weight_decay"} <= set(found["defaults"])
    assert not {"output_dir", "resume", "push_to_hub"} & {*found["changed"], *found["defaults"]}


def test_texts_that_are_not_ours_are_not_quoted(classify: Recipe) -> None:
    classify.run()
    published = card_of(classify) + json.dumps(facts_of(classify))
    assert not [text for text, _ in labelled_sentences(200) if text in published]
    assert "messages.csv" in published
    assert facts_of(classify)["licence"] is None
    assert "not recorded" in published
    assert "license" not in ModelCard.load(classify.final / "README.md").data.to_dict()


def test_facts_beside_other_weights_are_not_believed(classify: Recipe, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(checkpoint, folder)
    facts = {"format_version": 1, "weights": {"sha256": {"model.safetensors": "0" * 64}}, "recipe": "pretrain"}
    (folder / "card_facts.json").write_text(json.dumps(facts))
    classify.run(init_from=str(folder), max_steps=1)
    parent = facts_of(classify)["lineage"]["parent"]
    assert parent["facts"] is None
    assert parent["name"] == "changed"
    assert "What it was trained on is not recorded here" in card_of(classify)


def test_a_resumed_run_knows_what_it_began_with_and_how_long_it_took(classify: Recipe, tmp_path: Path) -> None:
    origin = Path(classify.fields["init_from"])
    parent = tmp_path / "parent"
    shutil.copytree(origin, parent)
    classify.run(init_from=str(parent), max_steps=2, eval_steps=1)
    before = facts_of(classify)
    (parent / "model.safetensors").unlink()  # replaced by another run in the meantime
    shutil.copyfile(classify.output_dir / "checkpoint-1" / "model.safetensors", parent / "model.safetensors")
    shutil.rmtree(classify.output_dir / "checkpoint-2")
    classify.run(init_from=str(parent), max_steps=2, eval_steps=1, resume="auto")
    after = facts_of(classify)
    assert after["lineage"] == before["lineage"] | {"num_resumptions": 1}
    assert after["training"]["training_seconds"] > 0
    assert "- **Resumed:** 1 time." in card_of(classify)


def test_random_weights_in_a_model_s_shape_have_no_ancestor_but_in_shape(classify: Recipe) -> None:
    classify.run(random_weights=True, max_steps=1)
    assert facts_of(classify)["lineage"]["parent"]["only_shape"]
    assert "none of whose own went into it" in card_of(classify)
    assert "from-scratch" in ModelCard.load(classify.final / "README.md").data.tags


def test_the_perplexity_of_no_number_is_no_number_and_of_a_great_loss_infinite() -> None:
    assert math.isnan(perplexity(math.nan))
    assert perplexity(math.inf) == perplexity(710.0) == math.inf


def blocks(recipe: Recipe) -> Iterator[str]:
    """The card's Python, with the folder in place of the one that it does not know."""
    for block in re.findall(r"```python\n(.*?)```", card_of(recipe), flags=re.DOTALL):
        yield block.replace("path/to/this/folder", str(recipe.final))


def test_the_card_s_python_runs_with_hfgpt(family: dict[str, Recipe], tmp_path: Path) -> None:
    found = [block for recipe in family.values() for block in blocks(recipe) if "import hfgpt" in block]
    assert len(found) == 3
    script = tmp_path / "with_hfgpt.py"
    script.write_text("\n".join(found))
    completed = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert completed.returncode == 0, completed.stderr


def test_the_card_s_python_runs_without_hfgpt(family: dict[str, Recipe], run_without_hfgpt, tmp_path: Path) -> None:
    found = [block for recipe in family.values() for block in blocks(recipe) if "trust_remote_code" in block]
    assert len(found) == 3
    run_without_hfgpt("\n".join(found), tmp_path)
