"""Runs that end before their last step by what their configuration says: they are finished, not interrupted."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def assert_finished(recipe, printed: str, step: int, num_steps: int, reason: str) -> None:
    """The sentence, and all that a run leaves at its end."""
    assert f"Stopped at step {step} of {num_steps}: {reason}.\n" in printed
    assert json.loads((recipe.output_dir / "results.json").read_text(encoding="utf-8"))["steps"] == step
    assert [line["step"] for line in recipe.metrics() if "validation_loss" in line][-1] == step
    last = recipe.output_dir / f"checkpoint-{step}"
    weights = [load_file(folder / "model.safetensors") for folder in (last, recipe.final)]
    assert all((value == weights[1][name]).all() for name, value in weights[0].items())
    AutoModelForCausalLM.from_pretrained(recipe.final)


def test_max_tokens_ends_a_run_with_the_step_that_reaches_them(recipe) -> None:
    printed = recipe.run(max_steps=100, max_tokens=200)  # 4 blocks of 16 a step
    assert_finished(recipe, printed, 4, 100, "max_tokens (200) are reached")


def test_max_minutes_end_a_run_when_they_are_over(recipe) -> None:
    printed = recipe.run(max_steps=1_000_000, max_minutes=0.005, eval_steps=None)
    step = json.loads((recipe.output_dir / "results.json").read_text(encoding="utf-8"))["steps"]
    assert_finished(recipe, printed, step, 1_000_000, "max_minutes (0.005) are over")


def test_a_run_whose_validation_loss_falls_no_more_ends_after_its_patience(recipe) -> None:
    printed = recipe.run(max_steps=100, learning_rate=1e-30, weight_decay=0, early_stopping_patience=3, eval_steps=2)
    reason = "the validation loss has not fallen in 3 evaluations (early_stopping_patience)"
    assert_finished(recipe, printed, 6, 100, reason)


def test_patience_is_not_used_up_while_the_loss_falls(recipe) -> None:
    printed = recipe.run(
        max_steps=12, learning_rate=1e-3, early_stopping_patience=1, eval_steps=3, max_eval_batches=None
    )
    assert "Stopped" not in printed
    assert (recipe.output_dir / "checkpoint-12").is_dir()


def test_a_run_that_its_budget_ended_goes_on_with_a_greater_one_as_if_it_had_never_ended(recipe, tmp_path) -> None:
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.1)
    fields: dict[str, Any] = {"model": {**recipe.fields["model"], **dropouts}, "max_steps": 12}
    recipe.run(max_tokens=5 * 64, **fields)
    straight = tmp_path / "straight"
    printed = recipe.run(resume="auto", **fields)
    assert "resumed from" in printed
    recipe.run("--output_dir", str(straight), **fields)
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (recipe.output_dir, straight)]
    assert all((value == weights[1][name]).all() for name, value in weights[0].items())


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 256}, {"learning_rate": 1e-30, "weight_decay": 0.0, "early_stopping_patience": 2}]
)
def test_a_run_that_has_reached_its_end_takes_no_step_more_when_it_is_resumed(recipe, fields) -> None:
    recipe.run(max_steps=100, **fields)
    weights = load_file(recipe.final / "model.safetensors")
    printed = recipe.run(max_steps=100, resume="auto", **fields)
    assert_finished(recipe, printed, 4, 100, printed.split("Stopped at step 4 of 100: ")[1].split(".\n")[0])
    again = load_file(recipe.final / "model.safetensors")
    assert all((value == again[name]).all() for name, value in weights.items())


def test_a_finished_run_is_resumed_to_the_same_end(recipe) -> None:
    recipe.run(max_steps=4)
    metrics, weights = recipe.metrics(), load_file(recipe.final / "model.safetensors")
    recipe.run(max_steps=4, resume="auto")
    assert recipe.metrics() == metrics
    again = load_file(recipe.final / "model.safetensors")
    assert all((value == again[name]).all() for name, value in weights.items())


# From the first step on, no file may be larger than this, which a picture is: what a quota does.
LIMITED = """
import resource
import hfgpt.recipes.running as running

train = running.train

def train_with_less(*arguments, **options):
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    return train(*arguments, **options)

running.train = train_with_less
"""


def test_a_full_disk_is_one_sentence_also_where_no_checkpoint_is_written(recipe, fork, tmp_path: Path) -> None:
    fields = {"max_steps": 40, "eval_steps": 39, "save_steps": 40, "sample_prompts": []}
    run = fork(tmp_path / "fork", recipe.arguments(**fields), prelude=LIMITED)
    assert run.wait() == [2], run.printed
    assert f"hfgpt: error: The run cannot write to {recipe.output_dir}: File too large" in run.printed
    assert "Traceback" not in run.printed
    assert not recipe.final.exists()


def test_a_signal_to_the_whole_group_spares_the_processes_that_prepare_batches(recipe, fork, tmp_path: Path) -> None:
    fields = {"max_steps": 1000, "save_steps": 20, "dataloader_num_workers": 1}
    run = fork(tmp_path / "fork", recipe.arguments(**fields), prelude="os.setsid()")
    run.wait_for(recipe.output_dir / "checkpoint-20")
    os.killpg(run.processes[0].pid, signal.SIGTERM)
    assert run.wait() == [143], run.printed
    assert "it received SIGTERM.\n" in run.printed
