"""The recipe on two real processes: the same training, written once, and stopped and resumed like any other."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

DROPOUT = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.1)


def exact(recipe, *, dropout: bool) -> dict[str, Any]:
    """Fields with which numbers agree within rounding, however the global batch is cut; bit for bit if it is not."""
    model = {**recipe.fields["model"], **{name: value if dropout else 0.0 for name, value in DROPOUT.items()}}
    # See tests/training/conftest.py on the epsilon: without it, rounding decides the step of the keys' bias.
    return {"model": model, "adam_epsilon": 1e-3, "learning_rate": 0.01, "micro_batch_size": 1}


def long(recipe, *, dropout: bool) -> dict[str, Any]:
    """A run that can be killed in its middle."""
    steps = {"max_steps": 200, "logging_steps": 3, "eval_steps": 50, "save_steps": 15, "keep_last": 100}
    return exact(recipe, dropout=dropout) | steps


@pytest.fixture(scope="module")
def straight(recipe_in, fork, tmp_path_factory) -> Callable[..., tuple[Path, dict[int, list[list[int]]]]]:
    """The long run that nobody kills, made once: its folder, and what it saw."""

    @functools.cache
    def run(num_processes: int, dropout: bool):
        folder = tmp_path_factory.mktemp(f"straight_{num_processes}")
        recipe = recipe_in(folder)
        forked = fork(folder / "fork", recipe.arguments(**long(recipe, dropout=dropout)), num_processes=num_processes)
        forked.finish()
        return recipe.output_dir, forked.seen

    return run


def assert_close_runs(one, other, recipe) -> None:
    lines, expected = recipe.metrics(one), recipe.metrics(other)
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    for line, reference in zip(lines, expected, strict=True):
        assert line.keys() == reference.keys()
        for name in reference.keys() - {"tokens_per_second", "evaluation_seconds"}:
            assert line[name] == pytest.approx(reference[name], rel=1e-4), (line["step"], name)
    final = [load_file(folder / "final" / "model.safetensors") for folder in (one, other)]
    for name, weight in final[1].items():
        assert_close(final[0][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_two_processes_under_torchrun_train_as_one_does(recipe, launch, tmp_path) -> None:
    fields = exact(recipe, dropout=False) | {"max_eval_batches": None}
    recipe.run(**fields)
    together = tmp_path / "together"
    arguments = [*recipe.arguments(**fields), "--output_dir", str(together)]
    run = launch.torchrun(tmp_path / "launch", launch.RECIPE, *arguments)
    assert run.finish().count("step      4: validation loss") == 1
    assert run.witnesses == {"0-0": "0 of 2 on cpu", "0-1": "1 of 2 on cpu"}
    assert {path.name for path in together.iterdir()} == {path.name for path in recipe.output_dir.iterdir()}
    assert_close_runs(together, recipe.output_dir, recipe)


def test_a_mistake_on_two_processes_ends_them_both_and_its_sentence_is_printed_once(recipe, fork, tmp_path) -> None:
    run = fork(tmp_path / "fork", recipe.arguments(source="/no/such.txt"), num_processes=2)
    assert run.wait() == [2, 2], run.printed
    assert run.printed.count("hfgpt: error: there is no file or folder /no/such.txt") == 1
    assert "Traceback" not in run.printed


def test_the_greatest_seed_is_one_for_every_process(recipe, fork, tmp_path) -> None:
    run = fork(tmp_path / "fork", recipe.arguments(seed=2**32 - 1, max_steps=1), num_processes=2)
    assert run.wait() == [0, 0], run.printed
    assert recipe.final.exists()


BROKEN = """
import hfgpt.recipes.run_folder as run_folder

def fail(config, path):
    raise PermissionError(13, "Permission denied", str(path))

run_folder.write_config = fail
"""


def test_another_error_of_the_first_process_ends_the_other_at_once_and_without_a_second_traceback(
    recipe, fork, tmp_path
) -> None:
    run = fork(tmp_path / "fork", recipe.arguments(), num_processes=2, prelude=BROKEN)
    assert run.wait() == [1, 2], run.printed
    assert run.printed.count("Traceback") == 1
    assert "PermissionError: [Errno 13] Permission denied" in run.printed


# The first process may write no file as large as the weights, from its third checkpoint on: a limit of the kind that a
# quota is. The other process has none, and writes nothing.
LIMITED = """
import resource
from hfgpt.training.checkpoints import CheckpointStore

write = CheckpointStore.write

def write_with_less(self, step, fill, **details):
    if step == 45 and os.environ["RANK"] == "0":
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    return write(self, step, fill, **details)

CheckpointStore.write = write_with_less
"""


@pytest.mark.parametrize("fields", [{}, {"save_in_background": False}, {"max_steps": 45}], ids=str)
def test_a_disk_that_is_full_for_the_process_that_writes_ends_both_with_one_sentence(
    recipe, fork, tmp_path, fields
) -> None:
    """In the middle of the run, and when its last checkpoint is the one that does not fit."""
    fields = {"eval_steps": None} | fields  # a picture that is drawn meanwhile would be too large, too
    arguments = recipe.arguments(**long(recipe, dropout=True) | fields)
    run = fork(tmp_path / "fork", arguments, num_processes=2, prelude=LIMITED)
    assert run.wait() == [2, 2], run.printed
    assert run.printed.count("The checkpoint of step 45 cannot be written") == 1
    assert "Traceback" not in run.printed
    assert sorted(path.name for path in recipe.output_dir.glob("checkpoint-*")) == ["checkpoint-15", "checkpoint-30"]
    assert not recipe.final.exists()


@pytest.mark.parametrize(("sent", "rank"), [(signal.SIGTERM, 0), (signal.SIGINT, 1), (signal.SIGUSR1, 1)])
def test_a_signal_to_one_process_stops_both_at_the_same_step_and_the_run_goes_on_bit_for_bit(
    recipe, straight, fork, tmp_path, comparison, sent, rank
) -> None:
    expected, seen = straight(2, dropout=True)
    arguments = recipe.arguments(resume="auto", **long(recipe, dropout=True))
    cut = fork(tmp_path / "cut", arguments, num_processes=2)
    cut.wait_for(recipe.output_dir / "checkpoint-15")
    cut.send(sent, rank)
    assert cut.wait() == [128 + sent, 128 + sent], cut.printed
    assert f"it received {sent.name}.\n" in cut.printed
    assert not recipe.final.exists()
    last = max(int(path.name.split("-")[1]) for path in recipe.output_dir.glob("checkpoint-*"))
    assert f"Stopped at step {last} of 200" in cut.printed

    resumed = fork(tmp_path / "resumed", arguments, num_processes=2)
    assert f"resumed from {recipe.output_dir / f'checkpoint-{last}'}" in resumed.finish()
    assert min(resumed.seen) == last
    assert cut.seen | resumed.seen == seen
    comparison.assert_same_run(recipe.output_dir, expected, last_step=200)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_other_and_the_run_goes_on_bit_for_bit(
    recipe, straight, fork, tmp_path, comparison, rank
) -> None:
    expected, seen = straight(2, dropout=True)
    arguments = recipe.arguments(resume="auto", **long(recipe, dropout=True))
    cut = fork(tmp_path / "cut", arguments, num_processes=2)
    cut.wait_for(recipe.output_dir / "checkpoint-15")
    cut.send(signal.SIGKILL, rank)
    codes = cut.wait()
    assert codes[rank] == -signal.SIGKILL
    assert codes[1 - rank] not in (0, 143)

    resumed = fork(tmp_path / "resumed", arguments, num_processes=2)
    assert "resumed from" in resumed.finish()
    assert {step: rows for step, rows in seen.items() if step >= min(resumed.seen)} == resumed.seen
    comparison.assert_same_run(recipe.output_dir, expected, last_step=200)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes_and_sees_the_same_examples(
    recipe, straight, fork, tmp_path, before, after
) -> None:
    expected, seen = straight(1, dropout=False)
    arguments = recipe.arguments(resume="auto", **long(recipe, dropout=False))
    cut = fork(tmp_path / "cut", arguments, num_processes=before)
    cut.wait_for(recipe.output_dir / "checkpoint-15")
    cut.send(signal.SIGTERM)
    assert cut.wait() == [143] * before
    resumed = fork(tmp_path / "resumed", arguments, num_processes=after)
    printed = resumed.finish()
    assert f"Saved by {before} processes and resumed on {after}" in printed.replace("1 process ", "1 processes ")
    assert cut.seen.keys() & resumed.seen.keys() <= {min(resumed.seen)}  # a batch that was taken when the stop came
    assert cut.seen | resumed.seen == seen
    assert_close_runs(recipe.output_dir, expected, recipe)
