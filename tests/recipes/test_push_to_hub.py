"""`push_to_hub: true`: checked before training, each checkpoint in the background, and the finished model."""

import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hfgpt.errors import UserError
from hfgpt.hub import hub_errors
from hfgpt.recipes import hub_push

from .conftest import Recipe

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

REPO = "tester/mine"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_errors, "WAITS", ())


def titles(hub: "LoopbackHub") -> list[str]:
    """Of the commits, from the first."""
    return [commit.title for commit in hub.repo(REPO).commits][::-1]


def test_a_finished_run_is_pushed_with_card_numbers_and_picture(hub: "LoopbackHub", recipe: Recipe) -> None:
    printed = recipe.run(push_to_hub=True, hub_model_id=REPO)
    assert f"Pushed:     {hub.endpoint}/{REPO}" in printed
    assert titles(hub) == ["initial commit", "End of training"]
    pushed = set(hub.repo(REPO))
    assert {"README.md", "card_facts.json", "metrics.jsonl", "results.json", "loss_curve.png"} <= pushed
    assert {"model.safetensors", "modeling_hfgpt.py", "tokenizer.json", "run_config.yaml"} <= pushed
    assert str(recipe.folder).encode() not in b"".join(hub.repo(REPO).values())
    assert REPO in hub.repo(REPO)["README.md"].decode()
    AutoModelForCausalLM.from_pretrained(REPO)


@pytest.mark.parametrize("task", ["classify", "instruct"])
def test_finetuned_models_are_pushed_too(hub: "LoopbackHub", task: str, request: pytest.FixtureRequest) -> None:
    recipe: Recipe = request.getfixturevalue(task)
    recipe.run(push_to_hub=True, hub_model_id=REPO, hub_private_repo=True)
    assert hub.repo(REPO).private
    assert "card_facts.json" in hub.repo(REPO)
    assert not {"report.json", "test_answers.jsonl", "samples.jsonl"} & set(hub.repo(REPO))
    auto_class = AutoModelForSequenceClassification if task == "classify" else AutoModelForCausalLM
    auto_class.from_pretrained(REPO)


def test_without_a_name_the_run_gives_its_own(hub: "LoopbackHub", recipe: Recipe) -> None:
    recipe.run(push_to_hub=True)
    assert "model.safetensors" in hub.repo(f"tester/{recipe.output_dir.name}")


def test_nothing_is_pushed_unasked(hub: "LoopbackHub", recipe: Recipe) -> None:
    recipe.run(hub_model_id=REPO)
    assert hub.requests == []


def test_each_checkpoint_is_pushed_and_then_the_finished_model(hub: "LoopbackHub", recipe: Recipe) -> None:
    recipe.run(push_to_hub=True, hub_model_id=REPO, hub_strategy="every_save", save_in_background=False)
    said = titles(hub)
    assert said[1].startswith("Training in progress: checkpoint-")
    assert said[-1] == "End of training"
    first, last = hub.repo(REPO).commits[-2], hub.repo(REPO).commits[0]
    assert "model.safetensors" in first.files
    assert ("README.md" in first.files, "README.md" in last.files) == (False, True)
    assert not [path for path in hub.repo(REPO) if "state" in path or "optimizer" in path or "manifest" in path]
    assert not list(recipe.output_dir.glob(".push-*"))


def test_of_checkpoints_that_wait_the_newest_wins(
    hub: "LoopbackHub", recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go, pushed = threading.Event(), []

    def slow_push(
        folder: Path, repo_id: str, *, private: bool | None, commit_message: str, with_card: bool
    ) -> hub_push.Pushed:
        assert may_go.wait(60)
        assert (folder / "model.safetensors").is_file() or folder == recipe.output_dir
        pushed.append(commit_message)
        return hub_push.Pushed(repo_id, [], [])

    monkeypatch.setattr(hub_push, "push", slow_push)
    original = hub_push.HubPush.push_final

    def push_final(self: hub_push.HubPush, folder: Path) -> None:
        may_go.set()
        original(self, folder)

    monkeypatch.setattr(hub_push.HubPush, "push_final", push_final)
    options = {"max_steps": 8, "eval_steps": None, "save_steps": 2, "keep_last": 1, "keep_best": 0}
    recipe.run(push_to_hub=True, hub_model_id=REPO, hub_strategy="every_save", save_in_background=False, **options)
    assert [path.name for path in recipe.output_dir.glob("checkpoint-*")] == ["checkpoint-8"]
    progress = "Training in progress: checkpoint-"
    assert pushed == [f"{progress}2", f"{progress}8", "End of training"]  # 2 had begun, though it was deleted since


def test_a_checkpoint_that_cannot_be_pushed_does_not_end_the_training(
    hub: "LoopbackHub", recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fail("403", route="/repos/create")
    recipe.run(push_to_hub=True, hub_model_id=REPO, hub_strategy="every_save", save_in_background=False)
    assert "was not pushed, and training goes on: This token may not write to tester/mine" in caplog.text
    assert titles(hub)[-1] == "End of training"


def test_what_nobody_has_foreseen_costs_one_checkpoint_and_not_the_model(
    hub: "LoopbackHub", recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pushed: list[str] = []

    def broken_at_first(
        folder: Path, repo_id: str, *, private: bool | None, commit_message: str, with_card: bool
    ) -> hub_push.Pushed:
        pushed.append(commit_message)
        if len(pushed) == 1:
            raise ZeroDivisionError("whatever it is")
        return hub_push.Pushed(repo_id, [], [])

    monkeypatch.setattr(hub_push, "push", broken_at_first)
    recipe.run(push_to_hub=True, hub_model_id=REPO, hub_strategy="every_save", save_in_background=False)
    assert pushed[-1] == "End of training"
    assert "was not pushed, and training goes on:" in caplog.text
    assert not list(recipe.output_dir.glob(".push-*"))


def test_a_checkpoint_that_has_made_room_already_is_said_and_passed_over(
    hub: "LoopbackHub", recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(folder: Path) -> None:
        raise UserError(f"There is no folder {folder}")

    monkeypatch.setattr(hub_push, "files_to_push", gone)
    recipe.run(push_to_hub=True, hub_model_id=REPO, hub_strategy="every_save", save_in_background=False)
    assert "was not pushed, and training goes on: There is no folder" in caplog.text
    assert titles(hub)[-1] == "End of training"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"hub_model_id": "somebody/mine"}, "tester may not write to somebody/mine"),
        ({"hub_model_id": "not a name"}, "'not a name' cannot be the name of a repository"),
    ],
)
def test_what_could_not_be_pushed_is_refused_before_training(
    hub: "LoopbackHub", recipe: Recipe, fields: dict[str, str], sentence: str
) -> None:
    assert sentence in recipe.refusal(push_to_hub=True, **fields)
    assert not recipe.output_dir.exists()


def test_what_is_private_in_the_configuration_is_known_before_training(hub: "LoopbackHub", recipe: Recipe) -> None:
    sentence = recipe.refusal(push_to_hub=True, hub_model_id=REPO, sample_prompts=["/home/ada/diary is"])
    assert (
        "could not be pushed, for there is a home folder or an absolute path of a machine in sample_prompts" in sentence
    )
    assert hub.requests == []
    assert not recipe.output_dir.exists()


def test_a_missing_token_is_known_before_training(
    hub: "LoopbackHub", recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "There is no token for the Hub" in recipe.refusal(push_to_hub=True, hub_model_id=REPO)
    assert not recipe.output_dir.exists()


def test_a_hub_that_fails_before_training_is_one_sentence_and_status_1(
    hub: "LoopbackHub", recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail("503", times=100)
    with pytest.raises(SystemExit) as stopped:
        recipe.run(push_to_hub=True, hub_model_id=REPO)
    assert stopped.value.code == 1
    assert "The Hub has failed (503)" in capsys.readouterr().err
    assert not recipe.output_dir.exists()


def test_a_finished_model_that_cannot_be_pushed_is_saved_and_the_sentence_says_how_to_push_it(
    hub: "LoopbackHub", recipe: Recipe
) -> None:
    hub.fail("403", route="/commit/")
    sentence = recipe.refusal(push_to_hub=True, hub_model_id=REPO)
    assert f"hfgpt push {recipe.output_dir} --repo {REPO}" in sentence
    AutoModelForCausalLM.from_pretrained(recipe.final)


def test_copies_for_pushing_take_no_room_and_outlive_the_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    original = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint-3"))
    (original / "training_state.json").write_text("{}")
    copy = hub_push._link_files(original, tmp_path / ".push-checkpoint-3")
    assert (copy / "model.safetensors").samefile(original / "model.safetensors")
    assert not (copy / "training_state.json").exists()
    shutil.rmtree(original)
    AutoModelForCausalLM.from_pretrained(copy)


def test_a_checkpoint_without_a_model_is_no_checkpoint_to_push(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(UserError):
        hub_push._link_files(tmp_path / "checkpoint-1", tmp_path / ".push-checkpoint-1")
