"""Real launchers: what they start, what they pass on, and that they do not start less than they were asked for."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

CONFIGS = Path(__file__).parents[2] / "recipes" / "accelerate_configs"


def long(recipe) -> dict[str, Any]:
    """A run that can be killed in its middle, with dropout: the random states count, too."""
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.1)
    steps = {"max_steps": 300, "logging_steps": 3, "eval_steps": 50, "save_steps": 15, "keep_last": 100}
    return {"model": {**recipe.fields["model"], **dropouts}, **steps}


@pytest.fixture(scope="module")
def straight(recipe_in, fork, tmp_path_factory) -> Path:
    """The same run on two processes, not under a launcher, which nobody kills."""
    folder = tmp_path_factory.mktemp("straight")
    recipe = recipe_in(folder)
    fork(folder / "fork", recipe.arguments(**long(recipe)), num_processes=2).finish()
    return recipe.output_dir


def test_accelerate_launch_on_two_processes_is_stopped_by_its_scheduler_and_goes_on(
    recipe, straight, launch, tmp_path, comparison
) -> None:
    """A scheduler signals all that it finds, and the launcher signals its processes once more."""
    arguments = [launch.RECIPE, *recipe.arguments(resume="auto", **long(recipe))]
    cut = launch.accelerate(tmp_path / "cut", CONFIGS / "multi_cpu.yaml", *arguments)
    cut.wait_for(recipe.output_dir / "checkpoint-30")
    for process in [cut.process.pid, cut.process_id(0), cut.process_id(1)]:
        os.kill(process, signal.SIGTERM)
    assert cut.wait() != 0
    last = max(int(path.name.split("-")[1]) for path in recipe.output_dir.glob("checkpoint-*"))
    assert f"Stopped at step {last} of 300: it received SIGTERM.\n" in cut.printed
    assert not recipe.final.exists()

    resumed = launch.accelerate(tmp_path / "resumed", CONFIGS / "multi_cpu.yaml", *arguments)
    assert f"resumed from {recipe.output_dir / f'checkpoint-{last}'}" in resumed.finish()
    assert resumed.witnesses == {"0-0": "0 of 2 on cpu", "0-1": "1 of 2 on cpu"}
    comparison.assert_same_run(recipe.output_dir, straight, last_step=300)


def test_accelerate_launch_on_two_processes_loses_one_to_a_kill_and_goes_on_when_it_is_started_again(
    recipe, straight, launch, tmp_path, comparison
) -> None:
    arguments = [launch.RECIPE, *recipe.arguments(resume="auto", **long(recipe))]
    cut = launch.accelerate(tmp_path / "cut", CONFIGS / "multi_cpu.yaml", *arguments)
    cut.wait_for(recipe.output_dir / "checkpoint-30")
    os.kill(cut.process_id(1), signal.SIGKILL)
    assert cut.wait() != 0
    assert not recipe.final.exists()

    resumed = launch.accelerate(tmp_path / "resumed", CONFIGS / "multi_cpu.yaml", *arguments)
    assert f"resumed from {recipe.output_dir / 'checkpoint-'}" in resumed.finish()
    comparison.assert_same_run(recipe.output_dir, straight, last_step=300)


def test_torchrun_goes_on_by_itself_when_a_process_is_killed(recipe, straight, launch, tmp_path, comparison) -> None:
    arguments = [launch.RECIPE, *recipe.arguments(resume="auto", **long(recipe))]
    run = launch.torchrun(tmp_path / "launch", "--max-restarts", "2", *arguments)
    run.wait_for(recipe.output_dir / "checkpoint-30")
    os.kill(run.process_id(rank=1), signal.SIGKILL)
    assert "resumed from" in run.finish()
    after_one_restart = {name: words for name, words in run.witnesses.items() if not name.startswith("0-")}
    assert after_one_restart == {"1-0": "0 of 2 on cpu", "1-1": "1 of 2 on cpu"}
    comparison.assert_same_run(recipe.output_dir, straight, last_step=300)


def test_a_config_with_which_accelerate_starts_one_process_in_place_of_two_is_refused(recipe, launch, tmp_path) -> None:
    config = yaml.safe_load((CONFIGS / "multi_cpu.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "accelerate.yaml"
    path.write_text(yaml.safe_dump(config | {"distributed_type": "MULTI_CPU", "use_cpu": True}), encoding="utf-8")
    run = launch.accelerate(tmp_path / "launch", path, launch.RECIPE, *recipe.arguments())
    assert run.wait() != 0
    assert run.witnesses == {"0-alone": "0 of 1 on cpu"}
    assert "hfgpt: error: accelerate launch was asked for several processes and has started only one" in run.printed
    assert not recipe.output_dir.exists()


def test_every_config_that_is_shipped_is_one_that_accelerate_reads() -> None:
    names = {path.name for path in CONFIGS.iterdir()}
    assert names == {"ddp.yaml", "multi_cpu.yaml"}
    for path in CONFIGS.iterdir():
        config = load_config_from_file(str(path))
        assert config.num_processes > 1
        assert config.distributed_type == "MULTI_GPU"


def test_torchrun_passes_on_the_warning_of_slurm_if_it_is_told_to(recipe, launch, tmp_path) -> None:
    options = ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"]
    run = launch.torchrun(tmp_path / "launch", *options, launch.RECIPE, *recipe.arguments(**long(recipe)))
    run.wait_for(recipe.output_dir / "checkpoint-30")
    run.process.send_signal(signal.SIGUSR1)
    assert run.wait() != 0
    assert "of 300: it received SIGUSR1.\n" in run.printed
    assert run.witnesses == {"0-0": "0 of 2 on cpu", "0-1": "1 of 2 on cpu"}  # both came to their end
