"""The command as a whole: help, exit statuses, what it imports."""

import os
import subprocess
import sys

import pytest

HEAVY = {"accelerate", "datasets", "evaluate", "jsonargparse", "matplotlib", "tiktoken", "hfgpt.modeling_hfgpt"}
COMMANDS = ["pretrain", "generate", "convert", "classify", "tokenizer", "recipes"]


def test_help_names_every_command(hfgpt) -> None:
    answer = hfgpt("--help")
    assert answer.status == 0
    for command in COMMANDS:
        assert command in answer.out


@pytest.mark.parametrize(
    "command",
    [
        ["pretrain"],
        ["generate"],
        ["convert"],
        ["classify", "train"],
        ["classify", "ablate"],
        ["classify", "predict"],
        ["tokenizer", "train"],
        ["recipes", "list"],
        ["recipes", "copy"],
    ],
)
def test_every_command_has_help(hfgpt, command: list[str]) -> None:
    answer = hfgpt(*command, "--help")
    assert answer.status == 0
    assert len(answer.out) > 100


def test_the_help_of_pretrain_is_that_of_the_recipe(hfgpt) -> None:
    assert "--learning_rate" in hfgpt("pretrain", "--help").out


def test_pretrain_passes_its_options_on(hfgpt) -> None:
    answer = hfgpt("pretrain", "--config=demo", "--max-steps", "7", "--print_config")
    assert answer.status == 0
    assert "max_steps: 7\n" in answer.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrian"],
        ["generate"],
        ["generate", "--modl", "x"],
        ["convert", "a"],
        ["classify", "predict", "x"],
        ["tokenizer", "train", "x"],
        ["recipes", "x"],
    ],
    ids=" ".join,
)
def test_a_misspelt_command_line_ends_with_status_2_and_no_traceback(hfgpt, arguments: list[str]) -> None:
    answer = hfgpt(*arguments)
    assert answer.status == 2
    assert "Traceback" not in answer.err
    assert "Usage" in answer.err


def test_a_mistake_in_a_recipe_is_one_sentence(hfgpt) -> None:
    assert "learning_rte" in hfgpt("pretrain", "--config", "demo", "--learning_rte", "1").sentence


def test_help_loads_nothing_but_the_package_itself() -> None:
    """`import hfgpt` registers with transformers' Auto classes, and these import torch; nothing more is needed."""
    program = (
        "import sys\n"
        "from hfgpt.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        f"    print(sorted({HEAVY} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", program, "--help"]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120)
    assert completed.stdout.splitlines()[-1] == "[]"


def test_the_installed_command_ends_a_users_mistake_with_status_2(tmp_path) -> None:
    command = [sys.executable, "-m", "hfgpt.cli.main", "generate", "--model", str(tmp_path)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert completed.returncode == 2
    assert completed.stdout == ""
    assert completed.stderr.startswith("hfgpt: error: There is no model in ")
    assert len(completed.stderr.splitlines()) == 1
