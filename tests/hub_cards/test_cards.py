"""What a card says of given facts, to people and to programs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from hfgpt.hub.cards import code, duration, plain, render_card, score, write_card

from .conftest import measured, repository, source

ROOT = Path(__file__).parents[2]


def text_of(facts: dict[str, Any], **options: Any) -> str:
    return str(render_card(facts, **options))


def parent(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "only_shape": False, "weights": {}, "repository": None, "facts": None} | fields


def test_the_same_facts_give_the_same_card(facts: dict[str, Any]) -> None:
    assert text_of(facts) == text_of(facts)


def test_the_head_survives_the_hub_s_own_class(facts: dict[str, Any]) -> None:
    card = render_card(facts, repo_id="ada/gpt")
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()
    assert again.data.model_name == "gpt"
    (result,) = again.data.eval_results
    assert (result.metric_type, result.metric_value) == ("perplexity", 4.48)
    assert result.metric_args == {"confidence": 0.95, "interval": [4.25, 4.75]}
    assert (result.dataset_type, result.dataset_name) == ("unknown", "builtin:stories (held out by hfgpt)")
    assert (result.dataset_split, result.metric_name) == ("validation", "perplexity")


def test_the_repository_s_name_stands_wherever_the_model_is_loaded(facts: dict[str, Any]) -> None:
    unnamed, named = text_of(facts), text_of(facts, repo_id="ada/gpt")
    assert "path/to/this/folder" in unnamed
    assert "path/to/this/folder" not in named
    assert 'from_pretrained("ada/gpt")' in named
    assert "\n# gpt\n" in named


@pytest.mark.parametrize("recipe", ["pretrain", "classify_train", "instruct"])
def test_in_gpt2_s_layout_no_foreign_code_is_to_be_trusted(facts: dict[str, Any], recipe: str) -> None:
    facts["recipe"] = recipe
    ours, gpt2 = text_of(facts), text_of(facts, layout="gpt2")
    assert "trust_remote_code=True" in ours
    assert "import hfgpt" in ours
    for words in ("trust_remote_code", "import hfgpt", "travels with"):
        assert words not in gpt2
    assert 'pipeline("' in gpt2
    assert "before it was written in GPT-2's layout" in gpt2


def test_only_what_is_on_the_hub_is_named_as_data_set_and_base_model(facts: dict[str, Any]) -> None:
    head = render_card(facts).data.to_dict()
    assert not {"base_model", "datasets"} & set(head)
    facts["data"] = [
        source("org/texts", "hub", repository=repository("org/texts", "dataset"), licence="mit", split="train"),
        source("mine.csv", "local", use="test"),
    ]
    facts["lineage"]["parent"] = parent("runs/base/final", facts={"lineage": {"parent": parent(
        "openai-community/gpt2", repository=repository("openai-community/gpt2", "model"))}, **carried()})  # fmt: skip
    head = render_card(facts).data.to_dict()
    assert head["datasets"] == ["org/texts"]
    assert head["base_model"] == "openai-community/gpt2"


def evaluated(facts: dict[str, Any], *data: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The data sets of the results on a validation and a test set, as they come back from the card's text."""
    facts["data"] = list(data)
    (table,) = facts["evaluation"]
    facts["evaluation"] = [table, table | {"split": "test"}]
    return [
        (result.dataset_type, result.dataset_name, result.dataset_config, result.dataset_split, result.dataset_revision,
         result.metric_name)
        for result in ModelCard(text_of(facts)).data.eval_results
    ]  # fmt: skip


def texts(use: str = "training", name: str = "org/texts", split: str = "train", **fields: Any) -> dict[str, Any]:
    return source(name, "hub", use=use, repository=repository(name, "dataset"), split=split, **fields)


def test_what_hfgpt_held_out_of_a_split_of_the_hub_is_said_to_lie_in_that_split(facts: dict[str, Any]) -> None:
    data_set = ("org/texts", "org/texts (held out by hfgpt)", "plain", "train", "a" * 40)
    assert evaluated(facts, texts(config="plain")) == [
        (*data_set, "perplexity (validation set)"),
        (*data_set, "perplexity (test set)"),
    ]


def test_a_split_that_was_read_by_itself_is_named(facts: dict[str, Any]) -> None:
    held_out, read = evaluated(facts, texts(), texts("test", split="unseen"))
    assert held_out[3] == "train"
    assert read == ("org/texts", "org/texts", None, "unseen", "a" * 40, "perplexity")
    assert render_card(facts).data.datasets == ["org/texts"]
    assert "**org/texts**, for test: the same, split `unseen`." in text_of(facts)


def test_what_is_not_on_the_hub_has_no_type_there_and_its_own_part_for_a_split(facts: dict[str, Any]) -> None:
    assert evaluated(facts, source("mine.csv", "local"), source("last.csv", "local", use="test")) == [
        ("unknown", "mine.csv (held out by hfgpt)", None, "validation", None, "perplexity"),
        ("unknown", "last.csv", None, "test", None, "perplexity"),
    ]


def test_a_parent_that_is_not_on_the_hub_is_told_by_what_it_was_trained_on(facts: dict[str, Any]) -> None:
    facts["lineage"]["parent"] = parent("runs/base/final", facts={"lineage": {"parent": None}, **carried()})
    assert "from `runs/base/final` (a model that was trained on `builtin:stories`) on" in text_of(facts)


def test_only_tokens_that_bear_loss_are_counted_in_an_assistant_s_training(facts: dict[str, Any]) -> None:
    assert "25,600 tokens in 100" in text_of(facts)
    facts["recipe"] = "instruct"
    assert "25,600 tokens that bear loss in 100" in text_of(facts)


def test_the_data_say_which_parts_were_held_out(facts: dict[str, Any]) -> None:
    part = facts["data"][0]["parts"][0]
    facts["data"][0]["parts"] = [part | {"name": name} for name in ("train", "validation", "test")]
    assert "for training and, held out of it by hfgpt, validation and test: generated" in text_of(facts)
    facts["data"].append(source("last.csv", "local", use="test"))
    assert "for training and, held out of it by hfgpt, validation: generated" in text_of(facts)
    assert "**last.csv**, for test: local files. Licence: not recorded." in text_of(facts)


def test_a_table_without_this_model_has_no_result(facts: dict[str, Any]) -> None:
    facts["evaluation"][0]["rows"].pop()
    assert "model-index" not in render_card(facts).data.to_dict()


@pytest.mark.parametrize(
    ("hardware", "stopped", "promise"),
    [
        ({"device": "cpu"}, None, "gives the same weights, bit for bit"),
        ({"device": "cpu"}, "max_tokens (9) are reached", "gives the same weights, bit for bit"),
        ({"device": "cpu"}, "max_minutes (9) are over", "ends at another step"),
        ({"device": "cuda"}, None, "the same but for rounding"),
        ({"device": "cpu", "num_processes": 3}, None, "the same but for rounding"),
    ],
)
def test_the_same_weights_are_promised_only_where_they_come_again(
    facts: dict[str, Any], hardware: dict[str, Any], stopped: str | None, promise: str
) -> None:
    facts["hardware"] |= hardware
    facts["training"]["stopped"] = stopped
    assert promise in text_of(facts)
    assert ("bit for bit" in text_of(facts)) == ("bit for bit" in promise)


def carried() -> dict[str, Any]:
    training = {"steps": 7, "targets": 70, "unit": "tokens", "training_seconds": 5}
    return {"model": {"parameters": 1}, "training": training, "data": [source("builtin:stories")]}


def test_a_model_that_gave_only_its_shape_is_no_base_model(facts: dict[str, Any]) -> None:
    gpt2 = repository("openai-community/gpt2", "model")
    facts["lineage"]["parent"] = parent("openai-community/gpt2", only_shape=True, repository=gpt2)
    card = render_card(facts)
    assert "base_model" not in card.data.to_dict()
    assert "from-scratch" in card.data.tags
    assert "What is said of the limits" not in str(card)


@pytest.mark.parametrize(("licence", "languages"), [(None, []), ("mit", ["en", "de"])])
def test_licence_and_languages_are_those_that_are_known(
    facts: dict[str, Any], licence: str | None, languages: list[str]
) -> None:
    found = repository("org/texts", "dataset", licence=licence, languages=languages)
    facts["data"] = [source("org/texts", "hub", repository=found, licence=licence, languages=languages, split="train")]
    facts["licence"] = None
    head = render_card(facts).data.to_dict()
    assert head.get("language", []) == sorted(languages)
    assert "license" not in head
    assert f"Licence: {f'`{licence}`' if licence else 'not recorded'}." in text_of(facts)
    assert "The licence of the weights is not recorded" in text_of(facts)


def test_energy_is_measured_or_said_not_to_be(facts: dict[str, Any]) -> None:
    assert "- **Energy:** not measured" in text_of(facts)
    facts["energy"]["kilowatt_hours"] = {"GPU 0": 1.23456}
    assert "- **Energy:** 1.235 kWh (GPU 0), read from the devices' own counters" in text_of(facts)


def test_what_is_not_known_is_said_not_to_be(facts: dict[str, Any]) -> None:
    facts["launch"], facts["git"] = None, None
    facts["hardware"]["cpu"] = facts["hardware"]["memory_gib"] = None
    facts["data"][0]["parts"] = [{"name": "train", "unit": "blocks of 8 tokens"}]
    facts["evaluation"][0]["rows"][0]["values"]["perplexity"] = measured(None)
    text = text_of(facts)
    for words in ("The command is not recorded", "no commit is recorded", "processor not recorded", "| bigram | - |",
                  "| train | a stream of blocks of 8 tokens | not recorded | not recorded |"):  # fmt: skip
        assert words in text


def test_a_checkout_with_changes_is_said_to_be_one(facts: dict[str, Any]) -> None:
    assert "not committed" not in text_of(facts)
    facts["git"]["changed_since"] = True
    assert "**with changes that were not committed**" in text_of(facts)


def test_texts_cannot_break_out_of_their_places(facts: dict[str, Any]) -> None:
    nasty = "a | b\n# c <script>x</script> `d` [e](f) *g*"
    facts["examples"] = [{"prompt": nasty, "text": nasty}]
    facts["data"][0]["source"] = nasty
    facts["hyperparameters"]["changed"]["system_prompt"] = nasty
    facts["model"]["labels"] = [nasty]
    html = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(render_card(facts).text)
    assert "<script>" not in html
    assert html.count("<h1>") == 1
    rows = re.findall(r"<tr>(.*?)</tr>", html, flags=re.DOTALL)
    assert {row.count("<td") for row in rows} <= {0, 2, 4}  # no table has a column too many
    assert html.count("a | b # c &lt;script&gt;x&lt;/script&gt; `d` [e](f) *g*") >= 3


def test_headings_stand_apart_and_tables_are_tables(facts: dict[str, Any]) -> None:
    text = text_of(facts)
    assert not re.search(r"[^\n]\n#+ ", text.split("\n# ", 1)[1])
    html = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(render_card(facts).text)
    for heading in ("How to use it", "Evaluation", "Where it comes from", "Data", "Training", "What it is for",
                    "How to make it again", "Licence and citation"):  # fmt: skip
        assert f"<h2>{heading}" in html
    assert html.count("<table>") == 5
    assert "|---" not in html


def test_the_citation_is_that_of_the_citation_file(facts: dict[str, Any]) -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (book,) = cited["references"]
    text = text_of(facts)
    for words in (book["title"], book["isbn"], book["authors"][0]["family-names"], str(book["year"]),
                  book["publisher"]["name"], cited["authors"][0]["name"], cited["license"]):  # fmt: skip
        assert words in text.split("## Licence and citation")[1]


def test_a_card_is_written_whole_or_not_at_all(
    facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_card(tmp_path, facts)
    before = path.read_text(encoding="utf-8")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_card(tmp_path, facts, "ada/other")
    assert [found.name for found in tmp_path.iterdir()] == ["README.md"]
    assert path.read_text(encoding="utf-8") == before


def test_values_are_written_for_people() -> None:
    assert score(measured(0.903, [0.876, 0.93]), "percent") == "90.3 % [87.6, 93.0]"
    assert score(measured(1039.6), "number") == "1,039.6"
    assert score(measured(4.5, [4.25, None]), "number") == "4.500 [4.250, -]"
    assert score(measured(0.5, [None, None]), "percent") == "50.0 % [-, -]"
    assert [duration(seconds) for seconds in (3.4, 300, 7200)] == ["3 seconds", "5.0 minutes", "2.0 hours"]
    assert code("a`b") == "`` a`b ``"
    assert code({"a": 1}) == '`{"a": 1}`'
    assert plain("x_y | z") == r"x\_y \| z"
