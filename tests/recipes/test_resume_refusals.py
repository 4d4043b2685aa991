"""What a resumption refuses, and what it takes: never another run, never half a checkpoint, never a silent change."""

import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hfgpt.cli.main import main as hfgpt
from hfgpt.recipes.corpus import prepare_corpus
from hfgpt.training.checkpoints import CheckpointStore

# A constant learning rate: with another one, more steps would be other steps.
FIELDS: dict[str, Any] = {"lr_scheduler_type": "constant", "resume": "auto"}
CARD_FILES = {"card_facts.json", "final/card_facts.json", "final/README.md"}
DROPOUTS = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.1)


@pytest.fixture(scope="module")
def finished(recipe_in, fork, tmp_path_factory) -> Path:
    """A run of four steps with checkpoints at 2 and 4, made once; tests copy it."""
    recipe = recipe_in(tmp_path_factory.mktemp("finished"))
    fork(recipe.folder / "fork", recipe.arguments(**FIELDS)).finish()
    return recipe.output_dir


@pytest.fixture
def run_there(recipe, finished) -> Path:
    """The folder of the test's own recipe, in which the finished run stands."""
    shutil.copytree(finished, recipe.output_dir)
    return recipe.output_dir


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock's, which names the last process that held it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def assert_the_card_counts_one_more_resumption(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """And that it took other seconds; all else in it stays."""
    facts = [json.loads(files["card_facts.json"]) for files in (before, after)]
    resumptions = [each["lineage"].pop("num_resumptions") for each in facts]
    assert resumptions[1] == resumptions[0] + 1
    for name in ("command_seconds", "training_seconds"):  # the latter goes on from what the checkpoint knows of
        assert all(each["training"].pop(name) > 0 for each in facts)
    assert facts[0] == facts[1]


def damage(checkpoint: Path) -> None:
    path = checkpoint / "training_state" / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-100])


# ----------------------------------------------------------------------------------------------------------------------
# Refused
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 43}, "seed = 42, and now it is 43"),
        ({"global_batch_size": 8}, "global_batch_size = 4, and now it is 8"),
        ({"block_size": 8}, "another data set"),
        ({"validation_fraction": 0.2}, "another data set"),
        ({"tokenizer_vocab_size": 279}, "another data set"),
        ({"added_special_tokens": ["<|extra|>"]}, "tokenizer"),
        (
            {"model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}},
            "(16, 16), and the configuration asks for (16, 32): keep the fields",
        ),
        ({"model": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}}, "checkpoint-4 lacks 16"),
        ({"model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}}, "has 16 weights too many"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_another_run_is_refused(recipe, run_there, changed, words) -> None:
    before = contents(run_there)
    sentence = recipe.refusal(**FIELDS | changed)
    assert words in sentence
    assert contents(run_there) == before


@pytest.mark.parametrize("changed", [{"hidden_act": "gelu"}, {"layer_norm_eps": 0.1}])
def test_a_model_that_computes_something_else_with_the_same_shapes_is_refused(recipe, run_there, changed) -> None:
    before = contents(run_there)
    sentence = recipe.refusal(**FIELDS, model=recipe.fields["model"] | changed)
    assert f"was trained with model.{next(iter(changed))} = " in sentence
    assert contents(run_there) == before


def test_a_run_that_is_past_its_end_is_refused(recipe, run_there) -> None:
    sentence = recipe.refusal(**FIELDS | {"max_steps": 3})
    assert "checkpoint-4 is at step 4, and the run is to end at step 3" in sentence


def test_a_finished_run_without_checkpoints_is_not_begun_anew_without_a_word(recipe, run_there) -> None:
    for step in (2, 4):
        shutil.rmtree(run_there / f"checkpoint-{step}")
    before = contents(run_there)
    assert "holds a finished run without checkpoints" in recipe.refusal(**FIELDS)
    assert contents(run_there) == before


def test_a_folder_that_holds_another_run_is_not_gone_on_with(recipe, run_there, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_there, other)
    before = contents(other)
    fields = FIELDS | {"resume": str(run_there / "checkpoint-2"), "output_dir": str(other)}
    assert f"output_dir {other} holds a run, and resume is to go on with another one" in recipe.refusal(**fields)
    assert contents(other) == before


def test_what_another_run_has_written_in_the_meantime_is_seen(recipe, run_there, monkeypatch) -> None:
    """The checkpoint is chosen before the text is prepared, and the folder is locked after that."""

    def prepare(*arguments: Any) -> Any:
        CheckpointStore(run_there).write(5, lambda folder: (folder / "anything").touch())
        return prepare_corpus(*arguments)

    monkeypatch.setattr("hfgpt.recipes.pretrain.prepare_corpus", prepare)
    assert f"Another run has written to {run_there} while this one was being prepared" in recipe.refusal(**FIELDS)
    assert json.loads((run_there / "results.json").read_text())["steps"] == 4


def test_another_text_is_refused(recipe, run_there, tmp_path) -> None:
    lines = Path(recipe.fields["source"]).read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].replace("the", "a", 1) if "the" in lines[3] else "the " + lines[3]
    before = contents(run_there)
    (tmp_path / "other.txt").write_text("\n".join(lines), encoding="utf-8")
    sentence = recipe.refusal(**FIELDS, source=str(tmp_path / "other.txt"))
    assert "another data set (fingerprint" in sentence
    assert contents(run_there) == before
    assert "--init_from" in sentence


def test_a_checkpoint_that_is_not_there_or_damaged_or_none_is_refused_and_nothing_is_changed(recipe, run_there) -> None:
    damage(run_there / "checkpoint-4")
    before = contents(run_there)
    for resume, words in (
        (run_there / "checkpoint-3", "there is no folder"),
        (run_there / "checkpoint-4", "optimizer.pt has"),
        (run_there / "final", "has no manifest.json: give the folder of a checkpoint"),
    ):
        sentence = recipe.refusal(**FIELDS | {"resume": str(resume)})
        assert words in sentence
        assert str(resume) in sentence
        assert contents(run_there) == before


def test_a_run_of_which_no_checkpoint_is_whole_is_not_begun_anew_without_a_word(recipe, run_there) -> None:
    for step in (2, 4):
        damage(run_there / f"checkpoint-{step}")
    before = contents(run_there)
    assert "No checkpoint in" in recipe.refusal(**FIELDS)
    assert contents(run_there) == before


# ----------------------------------------------------------------------------------------------------------------------
# Taken
# ----------------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_a_kill_left_between_two_renames_is_gone_on_from(
    recipe, run_there, finished, comparison
) -> None:
    (run_there / "checkpoint-4").rename(run_there / ".checkpoint-4.replaced")
    printed = recipe.run(**FIELDS)
    assert f"resumed from {run_there / 'checkpoint-4'}\n" in printed
    comparison.assert_same_run(run_there, finished, last_step=4)


def test_settings_of_the_optimizer_are_those_of_the_configuration_and_not_the_checkpoint_s(recipe, run_there) -> None:
    recipe.run(**FIELDS | {"weight_decay": 0.01, "adam_beta1": 0.5, "max_steps": 6})
    state = torch.load(run_there / "checkpoint-6" / "training_state" / "optimizer.pt")
    groups = state["optimizer"]["param_groups"]
    assert [(group["weight_decay"], group["betas"]) for group in groups] == [(0.01, (0.5, 0.95)), (0.0, (0.5, 0.95))]


def test_a_log_that_is_shorter_than_at_the_checkpoint_is_said_to_have_a_gap(recipe, run_there, caplog) -> None:
    (run_there / "metrics.jsonl").unlink()
    recipe.run(**FIELDS)
    (warning,) = [record.getMessage() for record in caplog.records if "metrics.jsonl has" in record.getMessage()]
    assert "has 0 bytes, fewer than the" in warning


def test_the_checkpoint_before_a_damaged_one_is_taken_and_leads_to_the_same_end(
    recipe, run_there, finished, comparison, caplog
) -> None:
    damage(run_there / "checkpoint-4")
    printed = recipe.run(**FIELDS)
    assert f"resumed from {run_there / 'checkpoint-2'}" in printed
    (warning,) = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert "checkpoint-4" in warning
    assert "optimizer.pt" in warning
    comparison.assert_same_run(run_there, finished, last_step=4)


def test_a_path_of_another_run_of_the_same_kind_can_be_resumed_into_a_new_folder(recipe, finished, comparison) -> None:
    before = contents(finished)
    printed = recipe.run(**FIELDS | {"resume": str(finished / "checkpoint-2")})
    assert "resumed from" in printed
    comparison.assert_same_state(recipe.output_dir / "checkpoint-4", finished / "checkpoint-4")
    assert contents(finished) == before


def test_resuming_a_finished_run_changes_nothing(recipe, run_there) -> None:
    before = contents(run_there)
    printed = recipe.run(**FIELDS)
    assert f"resumed from {run_there / 'checkpoint-4'}" in printed
    after = contents(run_there)
    assert_the_card_counts_one_more_resumption(before, after)
    results = [json.loads(files.pop("results.json")) for files in (before, after)]
    assert {**results[0], "seconds": None} == {**results[1], "seconds": None}
    # The picture is drawn by evaluations, and there was none; configurations differ in the run's folder alone.
    ours = {name for name in before if name.endswith("config.yaml")}
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= ours | CARD_FILES


@pytest.mark.parametrize("fields", [{"max_tokens": 130}, {"early_stopping_patience": 1, "learning_rate": 1.0}], ids=str)
def test_resuming_a_run_that_had_stopped_by_itself_takes_no_step(recipe, fields) -> None:
    fields = {**FIELDS, "max_steps": 40, **fields}
    stopped = next(line for line in recipe.run(**fields).splitlines() if line.startswith("Stopped at step "))
    before = contents(recipe.output_dir)
    assert stopped in recipe.run(**fields).splitlines()
    after = contents(recipe.output_dir)
    assert_the_card_counts_one_more_resumption(before, after)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"results.json"} | CARD_FILES


def test_more_steps_go_on_where_a_finished_run_ended_and_the_change_is_said(
    recipe, run_there, fork, recipe_in, tmp_path, comparison
) -> None:
    straight = recipe_in(tmp_path / "straight")
    straight.folder.mkdir()
    fork(tmp_path / "fork", straight.arguments(**FIELDS, max_steps=6)).finish()
    printed = recipe.run(**FIELDS, max_steps=6)
    assert "changed since the checkpoint: max_steps 4 -> 6\n" in printed
    comparison.assert_same_run(run_there, straight.output_dir, last_step=6)


def test_init_from_begins_at_the_first_step_with_a_new_optimizer(recipe, finished, tmp_path) -> None:
    printed = recipe.run(init_from=str(finished / "checkpoint-4"), model=None, resume="auto", max_steps=2)
    assert "resumed" not in printed
    state = json.loads((recipe.output_dir / "checkpoint-2" / "training_state" / "run.json").read_text())
    assert [evaluation["step"] for evaluation in state["evaluations"]] == [0, 2]
    optimizer = torch.load(recipe.output_dir / "checkpoint-2" / "training_state" / "optimizer.pt", weights_only=True)
    assert {int(moments["step"]) for moments in optimizer["optimizer"]["state"].values()} == {2}
    last_loss = recipe.metrics(finished)[-1]["validation_loss"]
    assert recipe.metrics()[0]["validation_loss"] == pytest.approx(last_loss, rel=1e-6)  # the weights are the old ones

    printed = recipe.run(init_from=str(finished / "checkpoint-4"), model=None, resume="auto", max_steps=4)
    assert f"resumed from {recipe.output_dir / 'checkpoint-2'}" in printed  # and not begun again from init_from


# ----------------------------------------------------------------------------------------------------------------------
# The checkpoint as a model, and ways to make it that change nothing
# ----------------------------------------------------------------------------------------------------------------------


def test_every_checkpoint_opens_as_a_model(finished, monkeypatch, capsys) -> None:
    for step in (2, 4):
        checkpoint = finished / f"checkpoint-{step}"
        model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
        weights = load_file(checkpoint / "model.safetensors")
        assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items() if name in weights)
        assert tokenizer.decode(tokenizer.encode("the cat sat")) == "the cat sat"
        arguments = ["generate", "--model", str(checkpoint), "--prompt", "the cat", "--max-new-tokens", "4"]
        monkeypatch.setattr(sys, "argv", ["hfgpt", *arguments])
        with pytest.raises(SystemExit) as ended:
            hfgpt()
        assert ended.value.code in (0, None)
        assert "the cat" in capsys.readouterr().out


@pytest.mark.parametrize(
    "fields", [{"save_in_background": False}, {"dataloader_num_workers": 2}], ids=lambda f: next(iter(f))
)
def test_neither_worker_processes_nor_background_writing_change_a_bit(recipe, finished, comparison, fields) -> None:
    recipe.run(**FIELDS | fields)
    comparison.assert_same_state(recipe.output_dir / "checkpoint-2", finished / "checkpoint-2")
    comparison.assert_same_run(recipe.output_dir, finished, last_step=4)
    assert contents(recipe.output_dir).keys() == contents(finished).keys()


# ----------------------------------------------------------------------------------------------------------------------
# A stream
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stream(text_file, tokenizer_folder, tmp_path) -> dict[str, Any]:
    """Five files of documents of uneven number, read as training goes, several times over."""
    folder = tmp_path / "documents"
    folder.mkdir()
    sentences = text_file.read_text(encoding="utf-8").splitlines()
    for index, (start, end) in enumerate([(0, 130), (130, 150), (150, 300), (300, 310), (310, 500)]):
        lines = [json.dumps({"text": " ".join(sentences[line : line + 2])}) for line in range(start, end)]
        (folder / f"part-{index}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "source": str(folder),
        "streaming": True,
        "tokenizer": str(tokenizer_folder),
        "tokenizer_vocab_size": None,
        "stream_lanes": 3,
        "shuffle_buffer_size": 16,
        "max_validation_documents": 20,
        "max_steps": 600,
        "logging_steps": 3,
        "eval_steps": 100,
        "save_steps": 35,
        "keep_last": 100,
        "max_eval_batches": 2,
    }


def test_a_run_on_a_stream_that_is_killed_and_resumed_is_the_run_that_never_was(
    recipe, recipe_in, fork, stream, comparison, tmp_path
) -> None:
    model = {**recipe.fields["model"], **DROPOUTS}
    straight = recipe_in(tmp_path / "straight")
    straight.folder.mkdir()
    unhurt = fork(tmp_path / "unhurt", straight.arguments(model=model, **FIELDS, **stream))
    arguments = recipe.arguments(model=model, **FIELDS, **stream)
    cut = fork(tmp_path / "cut", arguments)
    cut.wait_for(recipe.output_dir / "checkpoint-245")
    cut.send(signal.SIGKILL)
    assert cut.wait() == [-signal.SIGKILL]
    resumed = fork(tmp_path / "resumed", arguments)
    assert "resumed from" in resumed.finish()
    unhurt.finish()
    first = min(resumed.seen)
    assert 245 <= first < 600
    assert {step: unhurt.seen[step] for step in range(first, 600)} == resumed.seen
    comparison.assert_same_run(recipe.output_dir, straight.output_dir, last_step=600)


def test_another_stream_is_refused(recipe, stream: dict[str, Any]) -> None:
    fields = {**FIELDS, **stream, "max_steps": 4, "eval_steps": 2, "save_steps": 2}
    recipe.run(**fields)
    with (Path(stream["source"]) / "part-3.jsonl").open("a") as file:
        file.write(json.dumps({"text": "one more"}) + "\n")
    for changed in ({}, {"stream_lanes": 2}, {"shuffle_buffer_size": 8}):
        assert "another data set" in recipe.refusal(**fields | changed)


@pytest.mark.parametrize("name", ["checkpoint-2", "the-one-i-liked"])
def test_going_back_to_an_older_checkpoint_keeps_the_later_ones_aside(recipe, run_there, name: str) -> None:
    (run_there / "checkpoint-2").rename(run_there / name)
    former = contents(run_there / "checkpoint-4")
    printed = recipe.run(**FIELDS | {"resume": str(run_there / name), "max_steps": 6})
    assert "set aside as superseded-checkpoint-N: 1 checkpoints later than step 2" in printed
    assert contents(run_there / "superseded-checkpoint-4") == former
    # The way is the same, so it leads through the same numbers again.
    again = load_file(run_there / "checkpoint-4" / "model.safetensors")
    for weight, value in load_file(run_there / "superseded-checkpoint-4" / "model.safetensors").items():
        assert torch.equal(again[weight], value), weight
    assert (run_there / "checkpoint-6").is_dir()
