"""A push to the Hub on loopback: what arrives, what it replaces, and what a dry run says of it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

import hfgpt.hub.pushed_card
from hfgpt import HfGptForCausalLM
from hfgpt.errors import UserError
from hfgpt.hub.pushing import Layout, push

from .conftest import MODEL_FILES

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

REPO = "tester/model"


def stored(hub: "LoopbackHub", repo_id: str = REPO, revision: str = "main") -> list[str]:
    return sorted(path for path in hub.repo(repo_id, revision=revision) if path != ".gitattributes")


def test_a_pushed_model_loads_from_the_hub(hub: "LoopbackHub", model_folder: Path) -> None:
    pushed = push(model_folder, REPO)
    assert stored(hub) == sorted(["README.md", *MODEL_FILES])
    assert pushed.created
    assert pushed.url == f"{hub.endpoint}/{REPO}"
    assert pushed.commit == hub.repo(REPO).commit.oid
    model = AutoModelForCausalLM.from_pretrained(REPO)
    ids = torch.tensor([[1, 2, 3]])
    local = HfGptForCausalLM.from_pretrained(model_folder)
    assert torch.equal(model(ids).logits, local(ids).logits)
    assert AutoTokenizer.from_pretrained(REPO).decode([5]) == AutoTokenizer.from_pretrained(model_folder).decode([5])


def test_the_dry_run_lists_exactly_what_a_push_sends(hub: "LoopbackHub", run_folder: Path) -> None:
    listed = push(run_folder, REPO, dry_run=True)
    assert hub.requests == []
    assert listed.commit is None
    push(run_folder, REPO)
    sent = hub.repo(REPO).commit.files
    assert {file.path: (file.num_bytes, file.is_lfs) for file in listed.files} == {
        path: (len(file.content), file.is_large) for path, file in sent.items() if path != ".gitattributes"
    }
    assert all(hub.repo(REPO)[file.path] == file.read() for file in listed.files)


def test_everything_arrives_in_one_commit(hub: "LoopbackHub", run_folder: Path) -> None:
    push(run_folder, REPO, commit_message="The first")
    assert [commit.title for commit in hub.repo(REPO).commits] == ["The first", "initial commit"]


def test_pushing_the_same_again_changes_nothing(hub: "LoopbackHub", model_folder: Path) -> None:
    first = push(model_folder, REPO)
    again = push(model_folder, REPO)
    assert again.commit == first.commit
    assert (first.created, first.unchanged) == (True, False)
    assert (again.created, again.unchanged) == (False, True)
    assert push(model_folder, REPO, revision="new").unchanged  # the branch begins where main stands
    assert push(model_folder, REPO, create_pr=True).unchanged
    assert hub.repo(REPO).pull_requests == []
    (model_folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    assert not push(model_folder, REPO, revision="new").unchanged
    assert push(model_folder, REPO, revision="new").unchanged


def test_what_another_model_left_is_deleted_and_named(hub: "LoopbackHub", model_folder: Path, tmp_path: Path) -> None:
    push(model_folder, REPO)
    HfApi().upload_file(path_or_fileobj=b"{{ messages }}", path_in_repo="chat_template.jinja", repo_id=REPO)
    HfApi().upload_file(path_or_fileobj=b"notes", path_in_repo="NOTES.md", repo_id=REPO)
    sharded = tmp_path / "sharded"
    HfGptForCausalLM.from_pretrained(model_folder).save_pretrained(sharded, max_shard_size="10KB")
    pushed = push(sharded, REPO)
    assert "model.safetensors" in pushed.deleted  # transformers would read it before the shards
    assert "chat_template.jinja" in pushed.deleted
    assert not set(pushed.deleted) & set(stored(hub))
    assert "NOTES.md" in stored(hub)


def test_a_new_repository_is_as_private_as_it_was_asked_to_be(hub: "LoopbackHub", model_folder: Path) -> None:
    push(model_folder, REPO, private=True)
    assert hub.repo(REPO).private
    push(model_folder, "team/model")
    assert not hub.repo("team/model").private


def test_a_public_repository_is_not_taken_for_a_private_one(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.add_repo(REPO, {})
    with pytest.raises(UserError, match="tester/model is public, and a private repository was asked for"):
        push(model_folder, REPO, private=True)
    assert stored(hub) == []


def test_a_name_alone_means_ones_own_account(hub: "LoopbackHub", model_folder: Path) -> None:
    assert push(model_folder, "model").repo_id == "tester/model"


def test_a_branch_is_made_where_there_is_none(hub: "LoopbackHub", model_folder: Path) -> None:
    pushed = push(model_folder, REPO, revision="trial")
    assert stored(hub) == []
    assert "model.safetensors" in stored(hub, revision="trial")
    assert pushed.url == f"{hub.endpoint}/{REPO}/tree/trial"


def test_a_proposal_leaves_the_repository_as_it_is(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.add_repo("somebody/model", {"config.json": b"{}"})
    pushed = push(model_folder, "somebody/model", create_pr=True)
    assert stored(hub, "somebody/model") == ["config.json"]
    assert len(hub.repo("somebody/model").pull_requests) == 1
    assert pushed.url is not None
    assert "/discussions/" in pushed.url


def test_gpt2s_layout_loads_without_our_code(hub: "LoopbackHub", run_folder: Path) -> None:
    pushed = push(run_folder, REPO, layout="gpt2")
    assert {file.path: file.num_bytes for file in pushed.files} == {
        path: len(hub.repo(REPO)[path]) for path in stored(hub)
    }
    assert not [path for path in stored(hub) if path.endswith(".py")]
    assert json.loads(hub.repo(REPO)["config.json"])["model_type"] == "gpt2"
    assert {"README.md", "loss_curve.png", "model.safetensors", "tokenizer.json"} <= set(stored(hub))
    ids = torch.tensor([[1, 2, 3]])
    model, local = AutoModelForCausalLM.from_pretrained(REPO), HfGptForCausalLM.from_pretrained(run_folder / "final")
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert torch.allclose(model(ids).logits, local(ids).logits, atol=1e-5)
    assert "trust_remote_code" not in hub.repo(REPO)["README.md"].decode()


def test_what_gpt2_cannot_compute_is_not_pushed_as_gpt2(hub: "LoopbackHub", tmp_path: Path) -> None:
    config = HfGptForCausalLM.config_class(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, position_embedding_type="rotary"
    )
    HfGptForCausalLM(config).save_pretrained(tmp_path / "rotary")
    with pytest.raises(UserError):
        push(tmp_path / "rotary", REPO, layout="gpt2")
    assert hub.requests == []


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_a_repository_of_another_kind_is_left_alone(hub: "LoopbackHub", model_folder: Path, kind: str) -> None:
    hub.add_repo(REPO, {}, repo_type=kind)
    with pytest.raises(UserError, match=f"tester/model is a {kind} on the Hub: give the model another name"):
        push(model_folder, REPO)
    assert not [path for method, path, _ in hub.requests if method == "POST"]


@pytest.mark.parametrize(
    "name", ["", "a b", "..x", "a/b/c", "-model", "team/my model", "datasets/team/model", "team/a--b"]
)
def test_a_name_that_cannot_be_one_is_refused_before_anything_else(
    hub: "LoopbackHub", model_folder: Path, name: str
) -> None:
    with pytest.raises(UserError, match="your-name/my-model"):
        push(model_folder, name, dry_run=True)
    assert hub.requests == []


@pytest.mark.parametrize(
    "name", ["", "a b", "..x", "-x", "x.lock", "x/", "a//b", "a..b", "a^", "@", "refs/heads/x", "refs/pr/x", "x\n"]
)
def test_a_branch_that_cannot_be_one_is_refused_before_anything_else(
    hub: "LoopbackHub", model_folder: Path, name: str
) -> None:
    with pytest.raises(UserError, match="cannot be the name of a branch: give --revision one like trial-2"):
        push(model_folder, REPO, revision=name)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["trial", "v1.0", "feature/x", "main"])
def test_a_branch_of_any_usual_name_is_pushed_to(hub: "LoopbackHub", model_folder: Path, name: str) -> None:
    push(model_folder, REPO, revision=name)
    assert "model.safetensors" in hub.repo(REPO, revision=name)


def test_a_pull_request_is_opened_to_the_main_branch_only(hub: "LoopbackHub", model_folder: Path) -> None:
    with pytest.raises(UserError, match="to the main branch, not to trial: leave out --revision or --pr"):
        push(model_folder, REPO, revision="trial", create_pr=True)
    assert hub.requests == []


def test_a_pull_request_that_is_open_is_pushed_to(hub: "LoopbackHub", model_folder: Path) -> None:
    hub.add_repo("team/model", {"config.json": b"{}"})
    url = push(model_folder, "team/model", create_pr=True).url
    (model_folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    assert push(model_folder, "team/model", revision="refs/pr/1").url == url
    assert b"# Mine" in hub.repo("team/model", revision="refs/pr/1")["README.md"]
    with pytest.raises(UserError, match="team/model has no refs/pr/2: see .*/discussions, or open one with --pr"):
        push(model_folder, "team/model", revision="refs/pr/2")


def test_secrets_planted_in_a_run_are_not_pushed(hub: "LoopbackHub", run_folder: Path) -> None:
    planted = {
        ".env": "HF_TOKEN=hf_" + "a" * 34,
        "credentials.json": '{"password": "Tr0ub4dor&3"}',
        "final/id_rsa": "-----BEGIN RSA PRIVATE " + "KEY-----",
        "final/notes.py": "token = 'ghp_" + "b" * 36 + "'",
    }
    for name, text in planted.items():
        (run_folder / name).write_text(text)
    push(run_folder, REPO)
    everything = b"\n".join(hub.repo(REPO).values())
    assert not [text for text in planted.values() if text.encode() in everything]
    (run_folder / "final" / "README.md").write_text("# Model\n" + planted[".env"])
    with pytest.raises(UserError, match="a Hugging Face token in README.md, line 2"):
        push(run_folder, "tester/other")
    assert not [path for _, path, _ in hub.requests if "other" in path]


# ---------------------------------------------------------------------------------------------------------------------
# The card
# ---------------------------------------------------------------------------------------------------------------------


def test_a_model_without_a_card_gets_an_honest_one(hub: "LoopbackHub", model_folder: Path) -> None:
    push(model_folder, REPO)
    card = ModelCard.load(REPO)
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    assert "was not recorded" in card.text
    assert f'model="{REPO}", trust_remote_code=True' in card.text
    card.validate()


def test_a_card_of_ones_own_is_pushed_as_it_is(hub: "LoopbackHub", model_folder: Path) -> None:
    (model_folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    push(model_folder, REPO)
    assert hub.repo(REPO)["README.md"] == b"---\nlicense: mit\n---\n# Mine\n"


@pytest.fixture
def recorded(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with facts, and the card that was made of them before the repository had a name."""
    (model_folder / "card_facts.json").write_text('{"format_version": 1}')
    monkeypatch.setattr(
        hfgpt.hub.pushed_card,
        "render_card",
        lambda facts, repo_id=None, layout="hfgpt": ModelCard(
            f"---\nlicense: mit\n---\n# {facts['format_version']} in {repo_id}\n"
        ),
    )
    (model_folder / "README.md").write_text("---\nlicense: mit\n---\n# 1 in None\n")
    return model_folder


def test_a_card_made_from_facts_learns_the_repositorys_name(hub: "LoopbackHub", recorded: Path) -> None:
    push(recorded, REPO)
    assert "# 1 in tester/model" in hub.repo(REPO)["README.md"].decode()
    assert "card_facts.json" in stored(hub)
    assert "None" in (recorded / "README.md").read_text()  # the folder stays as it was


@pytest.mark.parametrize("layout", ["hfgpt", "gpt2"])
def test_a_push_says_that_it_replaces_a_card_that_was_edited_on_the_hub(
    hub: "LoopbackHub", run_folder: Path, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    push(run_folder, REPO, layout=layout)
    (run_folder / "metrics.jsonl").write_text('{"step": 2, "loss": 3.0}\n')
    push(run_folder, REPO, layout=layout)
    assert caplog.text == ""
    edited = hub.repo(REPO)["README.md"] + b"\n## My own words\n"
    HfApi().upload_file(path_or_fileobj=edited, path_in_repo="README.md", repo_id=REPO)
    push(run_folder, REPO, layout=layout)
    assert f"this push replaces it, and the text before stays in the history: {hub.endpoint}/{REPO}/commits/main" in (
        caplog.text
    )
    assert b"My own words" not in hub.repo(REPO)["README.md"]


def test_the_message_of_the_commit_is_searched(hub: "LoopbackHub", model_folder: Path) -> None:
    with pytest.raises(UserError, match="an absolute path of a machine in the commit's message, line 1"):
        push(model_folder, REPO, commit_message="What /home/ada/runs/best holds")
    assert hub.requests == []


def test_a_card_made_from_facts_that_was_edited_stays_as_it_was_edited(
    hub: "LoopbackHub", recorded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (recorded / "README.md").write_text("---\nlicense: mit\n---\n# Better words\n")
    push(recorded, REPO)
    assert "# Better words" in hub.repo(REPO)["README.md"].decode()
    assert "it is pushed as it is" in caplog.text


def test_facts_that_are_not_whole_are_one_sentence(hub: "LoopbackHub", model_folder: Path) -> None:
    (model_folder / "card_facts.json").write_text('{"format_version": 1}')
    with pytest.raises(UserError, match="is not whole .*: delete it, and README.md is pushed as it is"):
        push(model_folder, REPO, dry_run=True)
    (model_folder / "card_facts.json").write_text("[]")
    with pytest.raises(UserError, match="^[^ ]+card_facts.json holds no facts of a training: [^.]+\\.$"):
        push(model_folder, "tester/model")


@pytest.mark.parametrize("head", ["license: mine-alone", "license: [mit"])
def test_a_head_that_the_hub_would_refuse_is_refused_before_anything_is_made(
    hub: "LoopbackHub", model_folder: Path, head: str
) -> None:
    (model_folder / "README.md").write_text(f"---\n{head}\n---\n# Mine\n")
    with pytest.raises(UserError):
        push(model_folder, "tester/mine")
    assert not [path for method, path, _ in hub.requests if method == "POST" and path.endswith("/repos/create")]


@pytest.mark.parametrize("token", ["hf_good ", "hf_good\n", "", "hf_gööd"])
def test_what_is_no_token_is_refused_and_not_repeated(hub: "LoopbackHub", model_folder: Path, token: str) -> None:
    with pytest.raises(UserError, match="is no token") as refused:
        push(model_folder, "tester/mine", token=token)
    assert "hf_g" not in str(refused.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "field"), [("config.json", "auto_map"), ("model.safetensors.index.json", "weight_map")]
)
def test_files_of_another_shape_than_save_pretrained_writes_are_one_sentence(
    model_folder: Path, name: str, field: str
) -> None:
    path = model_folder / name
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | {field: ["a list"]}))
    if field == "weight_map":
        (model_folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="is not what save_pretrained writes"):
        push(model_folder, "tester/mine", dry_run=True)
