"""What is noted of the machine, and what is not."""

import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hfgpt.hub import machine
from hfgpt.hub.machine import git_commit, hardware, launch_command, versions


def test_the_command_is_the_one_that_was_typed_without_private_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv", ["/home/ada/.venv/bin/hfgpt", "pretrain", "--config", "demo", "--source=/home/ada/a.txt"]
    )
    assert launch_command(1) == "hfgpt pretrain --config demo --source=a.txt"


def test_who_repeats_the_command_does_not_push_to_the_same_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--push_to_hub", "true", "--hub_model_id=ada/mine", "--hub_strategy", "end", "--seed", "1"]
    monkeypatch.setattr("sys.argv", ["/home/ada/.venv/bin/hfgpt", "pretrain", *options])
    assert launch_command(1) == "hfgpt pretrain --seed 1"


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        ({}, "python"),
        ({"LOCAL_RANK": "0"}, "torchrun --nproc_per_node 2"),
        ({"LOCAL_RANK": "0", "ACCELERATE_MIXED_PRECISION": "no"}, "accelerate launch --num_processes 2"),
    ],
)
def test_a_script_s_launcher_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], launcher: str
) -> None:
    for name in ("LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["/home/ada/hfgpt/recipes/pretrain.py", "--config", "demo"])
    assert launch_command(2) == f"{launcher} recipes/pretrain.py --config demo"


def test_a_recipe_that_a_program_calls_has_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/home/ada/notebook.py"])
    assert launch_command(1) is None


def test_the_commit_is_that_of_the_checkout_and_changes_are_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "hfgpt"
    (package / "hub").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(machine, "__file__", str(package / "hub" / "machine.py"))
    assert git_commit() is None

    def git(*arguments: str) -> str:
        command = ["git", "-C", tmp_path, "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    assert git_commit() is None  # installed into a folder of somebody else's checkout
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    assert git_commit() == {"commit": git("rev-parse", "HEAD"), "changed_since": False}
    (package / "__init__.py").write_text("changed = True")
    assert git_commit() == {"commit": git("rev-parse", "HEAD"), "changed_since": True}


def test_hardware_and_versions_name_no_host() -> None:
    found = hardware(SimpleNamespace(device=torch.device("cpu"), num_processes=1, mixed_precision="no"))
    assert (found["device"], found["accelerators"], found["num_processes"]) == ("cpu", [], 1)
    assert found["cpu_cores"] >= 1
    assert socket.gethostname() not in map(str, found.values())
    assert {"python", "hfgpt", "torch", "transformers"} <= set(versions())
