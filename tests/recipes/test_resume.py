"""A run that is killed and resumed is the run that was never killed."""

import signal
from pathlib import Path
from typing import Any

import pytest

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]

# Evaluations, log lines and checkpoints at odd steps: the end may fall between any of them.
FIELDS: dict[str, Any] = {
    "max_steps": 300,
    "logging_steps": 3,
    "eval_steps": 50,
    "save_steps": 35,
    "keep_last": 100,
    "max_eval_batches": 2,
}


def with_dropout(recipe) -> dict[str, Any]:
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.1)
    return {**recipe.fields["model"], **dropouts}


@pytest.fixture(scope="module")
def straight(recipe_in, fork, tmp_path_factory) -> Path:
    """The run that is never killed, once for all tests."""
    folder = tmp_path_factory.mktemp("straight")
    recipe = recipe_in(folder)
    fork(folder / "fork", recipe.arguments(model=with_dropout(recipe), **FIELDS)).finish()
    return recipe.output_dir


@pytest.mark.parametrize("sent", [signal.SIGKILL, *STOP_SIGNALS], ids=lambda sent: sent.name)
def test_a_run_that_is_killed_and_resumed_is_the_run_that_never_was(
    recipe, fork, tmp_path, straight, comparison, sent
) -> None:
    arguments = recipe.arguments(model=with_dropout(recipe), resume="auto", **FIELDS)
    cut = fork(tmp_path / "cut", arguments)
    cut.wait_for(recipe.output_dir / "checkpoint-70")
    cut.send(sent)
    assert cut.wait() == [-sent if sent is signal.SIGKILL else 128 + sent], cut.printed
    if sent is not signal.SIGKILL:
        assert f"it received {sent.name}.\n" in cut.printed
    assert not recipe.final.exists()

    resumed = fork(tmp_path / "resumed", arguments)
    assert "resumed from" in resumed.finish()
    comparison.assert_same_state(recipe.output_dir / "checkpoint-280", straight / "checkpoint-280")
    comparison.assert_same_run(recipe.output_dir, straight, last_step=300)
