"""`model.push_to_hub`, with hfgpt at hand and without it: what goes along, what stays, and whether it opens again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import CommitInfo, ModelCard
from PIL import Image
from transformers import AutoTokenizer

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification
from hfgpt.errors import OutageError, UserError
from hfgpt.hub import hub_errors
from hfgpt.hub.cards import render_card, write_card
from hfgpt.hub.facts_file import CARD_FACTS, read_facts
from hfgpt.hub.minimal_card import minimal_card
from hfgpt.hub.pushing import push

from .conftest import CODE, MODEL_FILES

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

REPO = "tester/model"
FACTS = Path(__file__).parents[2] / "model_cards" / "facts" / "hfgpt-demo.json"
OF_THE_RUN = {CARD_FACTS, "loss_curve.png", "metrics.jsonl", "results.json", "run_config.yaml"}
WRITTEN = "---\nlibrary_name: transformers\nlicense: apache-2.0\n---\n\n# Written by hand\n\n![Loss](loss_curve.png)\n"

# What a process says of repositories: the code by which each opened, and what its model answers.
OPENS = """
import sys
from transformers import pipeline

for repo, task in {repos}:
    options = dict(max_new_tokens=3, do_sample=False) if task == "text-generation" else dict()
    do = pipeline(task, model=repo, **{trust})
    print(type(do.model).__module__.split(".")[0], repo, do("the cat", **options)[0])
"""


@pytest.fixture
def final(run_folder: Path) -> Path:
    """The model of a finished run, with its card and the facts of a real one."""
    shutil.copyfile(FACTS, run_folder / "final" / CARD_FACTS)
    write_card(run_folder / "final", read_facts(FACTS))
    return run_folder / "final"


def changed(model: Any) -> Any:
    """The model after it has learned something."""
    with torch.no_grad():
        model.model.norm.weight += 0.5
    return model


def pushed_card(hub: "LoopbackHub", repo_id: str = REPO) -> str:
    return hub.repo(repo_id)["README.md"].decode()


def card_of_nothing(hub: "LoopbackHub") -> str:
    """The card of a model of which nothing is known."""
    return str(minimal_card(json.loads(hub.repo(REPO)["config.json"]), REPO))


def open_anywhere(run_python: Callable[..., Any], repos: dict[str, str]) -> None:
    """See that repositories open in a fresh process without hfgpt and with it, and say the same."""
    answers = []
    for code, trust in (("transformers_modules", {"trust_remote_code": True}), ("hfgpt", {})):
        script = OPENS.format(repos=list(repos.items()), trust=trust)
        without = {"without_hfgpt": True} if trust else {}
        said = run_python(script if trust else f"import hfgpt\n{script}", **without).stdout.splitlines()[-len(repos) :]
        assert {line.partition(" ")[0] for line in said} == {code}
        answers.append([line.partition(" ")[2] for line in said])
    assert answers[0] == answers[1]


def test_a_run_s_model_takes_everything_along_that_hfgpt_push_would_send(hub: "LoopbackHub", final: Path) -> None:
    (final.parent / "README.md").write_text("# Of the folder in which runs lie\n")
    HfGptForCausalLM.from_pretrained(final).push_to_hub(REPO)
    pushed = hub.repo(REPO)
    push(final.parent, "tester/folder")
    assert {"README.md", *MODEL_FILES, *OF_THE_RUN} <= set(pushed)
    unlike = {name for name, content in hub.repo("tester/folder").items() if pushed.get(name) != content}
    assert (set(pushed), unlike) == (set(hub.repo("tester/folder")), {"README.md"})  # which names its repository
    assert pushed_card(hub) == str(render_card(read_facts(FACTS), repo_id=REPO))
    assert "path/to/this/folder" not in pushed_card(hub)
    assert b"acme" not in pushed["run_config.yaml"]  # as hfgpt push, which cuts paths down


def test_a_card_written_by_hand_goes_along_as_it_is(hub: "LoopbackHub", model_folder: Path) -> None:
    (model_folder / "README.md").write_text(WRITTEN)
    Image.new("RGB", (8, 8)).save(model_folder / "loss_curve.png")
    HfGptForCausalLM.from_pretrained(model_folder).push_to_hub(REPO)
    assert pushed_card(hub) == WRITTEN
    assert {"loss_curve.png", "model.safetensors", "tokenizer.json", *CODE} <= set(hub.repo(REPO))


@pytest.mark.parametrize(
    ("name", "private"),
    [("README.md", "# Ours\n\nhf_" + "a1B2" * 9 + "\n"), ("metrics.jsonl", '{"data": "/home/ada/letters.txt"}\n')],
)
def test_something_private_stops_the_push_before_anything_is_made(
    hub: "LoopbackHub", model_folder: Path, name: str, private: str
) -> None:
    (model_folder / name).write_text(private)
    model = HfGptForCausalLM.from_pretrained(model_folder)
    with pytest.raises(UserError, match=f"Nothing is pushed.*in {name}, line"):
        model.push_to_hub(REPO)
    assert {method for method, _, _ in hub.requests} <= {"GET", "HEAD"}


def test_a_link_to_somewhere_else_is_not_followed(
    hub: "LoopbackHub", model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "elsewhere.jsonl").write_text("{}\n")
    (model_folder / "metrics.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    HfGptForCausalLM.from_pretrained(model_folder).push_to_hub(REPO)
    assert "metrics.jsonl" not in hub.repo(REPO)
    assert f"{model_folder / 'metrics.jsonl'} is a link" in caplog.text


@pytest.mark.parametrize(("name", "content"), [(CARD_FACTS, "{"), ("README.md", "---\nlicense: [\n---\n# Ours\n")])
def test_what_cannot_be_read_is_named_by_its_place_here(
    hub: "LoopbackHub", model_folder: Path, name: str, content: str
) -> None:
    (model_folder / name).write_text(content)
    model = HfGptForCausalLM.from_pretrained(model_folder)
    with pytest.raises(UserError, match=str(model_folder / name)):
        model.push_to_hub(REPO)
    assert {method for method, _, _ in hub.requests} <= {"GET", "HEAD"}


def test_a_model_that_has_learned_since_is_another_of_which_nothing_is_known(hub: "LoopbackHub", final: Path) -> None:
    changed(HfGptForCausalLM.from_pretrained(final)).push_to_hub(REPO)
    assert set(hub.repo(REPO)) - {".gitattributes"} == {"README.md", *MODEL_FILES}
    assert pushed_card(hub) == card_of_nothing(hub)


def test_the_tokenizer_stays_behind_where_the_vocabulary_has_grown(hub: "LoopbackHub", final: Path) -> None:
    model = HfGptForCausalLM.from_pretrained(final)
    model.resize_token_embeddings(280)
    model.push_to_hub(REPO)
    assert not {"tokenizer.json", "tokenizer_config.json"} & set(hub.repo(REPO))


def test_a_checkpoint_of_a_run_goes_without_the_numbers_of_the_whole_run(hub: "LoopbackHub", final: Path) -> None:
    checkpoint = final.parent / "checkpoint-7"
    shutil.copytree(final, checkpoint, ignore=shutil.ignore_patterns("README.md", CARD_FACTS))
    (checkpoint / "optimizer.bin").write_bytes(b"")
    HfGptForCausalLM.from_pretrained(checkpoint).push_to_hub(REPO)
    assert set(hub.repo(REPO)) - {".gitattributes"} == {"README.md", "run_config.yaml", *MODEL_FILES}
    assert pushed_card(hub) == card_of_nothing(hub)


def test_a_model_made_of_a_configuration_takes_nothing_of_the_working_folder(
    hub: "LoopbackHub", final: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(final)
    config = HfGptConfig(vocab_size=270, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    HfGptForCausalLM(config).push_to_hub(REPO)
    pushed = {name for name in hub.repo(REPO) if not name.startswith(".")}
    assert pushed == {"README.md", *MODEL_FILES} - {"tokenizer.json", "tokenizer_config.json"}
    assert pushed_card(hub) == card_of_nothing(hub)
    assert HfGptForCausalLM.from_pretrained(REPO).num_parameters() == HfGptForCausalLM(config).num_parameters()


def test_a_classifier_made_of_a_language_model_keeps_its_tokenizer(hub: "LoopbackHub", final: Path) -> None:
    HfGptForSequenceClassification.from_pretrained(final).push_to_hub(REPO)
    assert ModelCard.load(REPO).data.to_dict()["pipeline_tag"] == "text-classification"
    assert CARD_FACTS not in hub.repo(REPO)


def test_shards_take_the_place_of_one_file_and_the_card_stays_true(hub: "LoopbackHub", final: Path) -> None:
    model = HfGptForCausalLM.from_pretrained(final)
    model.push_to_hub(REPO)
    model.push_to_hub(REPO, max_shard_size="20KB")
    weights = sorted(name for name in hub.repo(REPO) if name.endswith(".safetensors"))
    assert len(weights) > 2
    assert weights[0].startswith("model-00001-of-")  # and model.safetensors, which would be read first, is gone
    assert pushed_card(hub) == str(render_card(read_facts(FACTS), repo_id=REPO))


def test_saving_with_push_to_hub_pushes_as_many_shards_as_it_saves(
    hub: "LoopbackHub", final: Path, tmp_path: Path
) -> None:
    model = HfGptForCausalLM.from_pretrained(final)
    with pytest.raises(ValueError, match="state_dict"):
        model.save_pretrained(tmp_path / "saved", push_to_hub=True, state_dict=model.state_dict())
    model.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=REPO, max_shard_size="20KB")
    saved = {path.name for path in (tmp_path / "saved").glob("*.safetensors")}
    assert {name for name in hub.repo(REPO) if name.endswith(".safetensors")} == saved
    assert len(saved) > 2


def test_what_was_loaded_from_the_hub_is_pushed_under_a_card_that_names_its_new_place(
    hub: "LoopbackHub", final: Path
) -> None:
    HfGptForCausalLM.from_pretrained(final).push_to_hub("tester/first")
    HfGptForCausalLM.from_pretrained("tester/first").push_to_hub(REPO)
    assert set(hub.repo(REPO)) == set(hub.repo("tester/first"))
    assert pushed_card(hub) == str(render_card(read_facts(FACTS), repo_id=REPO))
    changed(HfGptForCausalLM.from_pretrained("tester/first")).push_to_hub("tester/third")
    assert {"tokenizer.json"} == {"tokenizer.json", CARD_FACTS} & set(hub.repo("tester/third"))


def test_a_home_that_is_gone_is_said(hub: "LoopbackHub", model_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = HfGptForCausalLM.from_pretrained(model_folder)
    shutil.rmtree(model_folder)
    model.push_to_hub(REPO)
    assert "What lay beside the model in" in caplog.text
    assert "tokenizer.json" not in hub.repo(REPO)


def test_a_card_written_in_the_repository_stays_and_one_that_was_made_does_not(
    hub: "LoopbackHub", final: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add_repo(REPO, {"README.md": WRITTEN.encode()})
    HfGptForCausalLM.from_pretrained(final).push_to_hub(REPO)
    assert pushed_card(hub) == WRITTEN
    assert "keeps the card that was written there" in caplog.text
    HfGptForCausalLM.from_pretrained(final).push_to_hub("tester/other")
    changed(HfGptForCausalLM.from_pretrained(final)).push_to_hub("tester/other")
    assert "was not recorded" in pushed_card(hub, "tester/other")
    assert not OF_THE_RUN & set(hub.repo("tester/other"))
    HfGptForCausalLM.from_pretrained(final).push_to_hub("tester/other")
    assert pushed_card(hub, "tester/other") == str(render_card(read_facts(FACTS), repo_id="tester/other"))


@pytest.mark.parametrize(
    ("fault", "route", "sentence"),
    [
        ("500", "GET /api/models/tester/model", "The Hub has failed"),
        ("403", "HEAD /tester/model/resolve", "This token may not write"),  # of its contents the client asks so
    ],
)
def test_a_hub_that_fails_while_it_is_asked_what_is_there_is_said_and_nothing_changed(
    hub: "LoopbackHub", final: Path, monkeypatch: pytest.MonkeyPatch, fault: str, route: str, sentence: str
) -> None:
    hub.add_repo(REPO, {"README.md": WRITTEN.encode()})
    model = HfGptForCausalLM.from_pretrained(final)
    monkeypatch.setattr(hub_errors, "WAITS", (0.0,))
    hub.fail(fault, times=100, route=route)
    with pytest.raises((UserError, OutageError), match=sentence):
        model.push_to_hub(REPO)
    assert set(hub.repo(REPO)) == {".gitattributes", "README.md"}


@pytest.mark.parametrize("tokenizer_first", [True, False])
def test_a_tokenizer_pushed_by_itself_costs_the_repository_neither_card_nor_tokenizer(
    hub: "LoopbackHub", final: Path, tokenizer_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer = HfGptForCausalLM.from_pretrained(final), AutoTokenizer.from_pretrained(final)
    tokenizer.chat_template = "{{ messages }}"
    for pushed in [tokenizer, model] if tokenizer_first else [model, tokenizer]:
        pushed.push_to_hub(REPO)
    assert pushed_card(hub).strip() == str(render_card(read_facts(FACTS), repo_id=REPO)).strip()
    assert AutoTokenizer.from_pretrained(REPO).chat_template == "{{ messages }}"
    model.push_to_hub(REPO)
    assert AutoTokenizer.from_pretrained(REPO).chat_template == "{{ messages }}"
    assert "a tokenizer that is not the one" not in caplog.text
    tokenizer.add_tokens(["Lindale"])
    tokenizer.push_to_hub(REPO)
    model.push_to_hub(REPO)
    assert "Lindale" in AutoTokenizer.from_pretrained(REPO).get_vocab()
    assert "a tokenizer that is not the one" in caplog.text


def test_the_options_of_transformers_do_what_they_say(hub: "LoopbackHub", final: Path) -> None:
    model = HfGptForCausalLM.from_pretrained(final)
    model.add_model_tags("stories")
    pushed = model.push_to_hub(
        "model", commit_message="First", commit_description="By hand.", private=True, token=True, tags=["tiny", "gpt"]
    )
    assert isinstance(pushed, CommitInfo)
    assert (pushed.repo_url.repo_id, pushed.commit_message) == (REPO, "First")
    tags = ModelCard.load(REPO).data.to_dict()["tags"]
    assert {"hfgpt", "gpt", "stories", "tiny"} <= set(tags)
    assert len(set(tags)) == len(tags)
    newest = hub.repo(REPO).commits[0]
    assert (newest.oid, newest.title) == (pushed.oid, "First\n\nBy hand.")
    changed(model).push_to_hub(REPO, tags="tiny")
    assert "was not recorded" in pushed_card(hub)  # tags do not make a card one that somebody has written
    proposed = changed(model).push_to_hub(REPO, create_pr=True)
    assert proposed.pr_url is not None
    model.push_to_hub(REPO, revision="trial")
    assert hub.repo(REPO, revision="trial")["model.safetensors"] != hub.repo(REPO)["model.safetensors"]


# A process without hfgpt pushes what it has loaded by the code that travels.
STRANGER = """
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({folder!r}, trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
model.push_to_hub({repo!r})
"""


def test_an_adapter_is_pushed_as_transformers_pushes_it(hub: "LoopbackHub", final: Path) -> None:
    peft = pytest.importorskip("peft", reason="adapters are peft's")
    model = HfGptForCausalLM.from_pretrained(final)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.push_to_hub(REPO)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(hub.repo(REPO))
    assert "model.safetensors" not in hub.repo(REPO)


def test_all_that_is_pushed_opens_with_hfgpt_and_without_it(
    hub: "LoopbackHub", final: Path, run_python: Callable[..., Any]
) -> None:
    checkpoint = shutil.copytree(final, final.parent / "checkpoint-7")
    model = HfGptForCausalLM.from_pretrained(final)
    model.push_to_hub("tester/run")
    model.push_to_hub("tester/shards", max_shard_size="20KB")
    HfGptForCausalLM.from_pretrained("tester/run").push_to_hub("tester/hub")
    HfGptForCausalLM.from_pretrained(checkpoint).push_to_hub("tester/checkpoint")
    HfGptForSequenceClassification.from_pretrained(final).push_to_hub("tester/classifier")
    HfGptForCausalLM(model.config).push_to_hub("tester/config")
    changed(model).push_to_hub("tester/changed")
    run_python(STRANGER.format(folder=str(final), repo="tester/stranger"), without_hfgpt=True)
    bare = {"README.md", *MODEL_FILES} - {"tokenizer.json", "tokenizer_config.json"}
    assert set(hub.repo("tester/stranger")) - {".gitattributes"} == bare  # nothing that was not searched
    for without_tokenizer in ("tester/config", "tester/stranger"):
        AutoTokenizer.from_pretrained(final).push_to_hub(without_tokenizer)
    names = ["run", "shards", "hub", "checkpoint", "config", "changed", "stranger"]
    tasks = {f"tester/{name}": "text-generation" for name in names} | {"tester/classifier": "text-classification"}
    open_anywhere(run_python, tasks)
