"""Paths that say where somebody keeps things are cut down; everything else stays as it was written."""

import pytest

from hfgpt.hub.public_text import public_command, public_text, public_value


@pytest.mark.parametrize(
    ("written", "published"),
    [
        ("/home/ada/mail/letters.csv", "letters.csv"),
        ("/home/ada/my texts/a letter.txt", "a letter.txt"),
        ("~/letters.csv", "letters.csv"),
        ("~ada/letters.csv", "letters.csv"),
        ("../ada/letters.csv", "letters.csv"),
        ("file:///home/ada/letters.csv", "letters.csv"),
        (r"C:\Users\Ada\letters.csv", "letters.csv"),
        (r"\\server\ada\letters.csv", "letters.csv"),
        (r"read \\server\ada\letters.csv", "read letters.csv"),
        ("/srv/runs/mine/final", "mine/final"),
        ("/srv/runs/mine/checkpoint-500/", "mine/checkpoint-500"),
        ("~/final", "final"),
        ("/home/ada", "."),
        ("/home/ada/final", "final"),
        ("/root/runs/mine/final", "mine/final"),
        ("~", "."),
        ("tokenizer: 1,024 ids, from /home/ada/tokenizer", "tokenizer: 1,024 ids, from tokenizer"),
        ("that of ~/base/final", "that of base/final"),
        ('["/home/ada/a.txt", "/home/ada/b.txt"]', '["a.txt", "b.txt"]'),
    ],
)
def test_of_a_path_outside_the_working_folder_the_last_component_is_left(written: str, published: str) -> None:
    assert public_text(written) == published


@pytest.mark.parametrize(
    "text",
    [
        "runs/demo/final",
        "openai-community/gpt2",
        "https://huggingface.co/openai-community/gpt2",
        "builtin:stories",
        "spam and/or ham, 16/17 of them",
        "say /help for help",
        "/help",
        "/translate en/de",
        "/w/ or w/o",
        "one line\nand another",
        "approx. ~ 5 of 10",
        "",
    ],
)
def test_what_is_no_such_path_stays(text: str) -> None:
    assert public_text(text) == text


def test_every_text_in_a_value_is_looked_at() -> None:
    value = {"source": "/home/ada/a.txt", "orders": [2, 5], "prompts": ("", "/home/ada/b.txt"), "seed": None}
    assert public_value(value) == {"source": "a.txt", "orders": [2, 5], "prompts": ["", "b.txt"], "seed": None}


def test_what_is_told_to_a_model_is_no_path() -> None:
    value = {"sample_prompts": ["/imagine a/cat", "/mnt/x is"], "system_prompt": "/a/b", "source": "/mnt/x"}
    assert public_value(value) == {**value, "source": "x"}


def test_a_command_can_be_pasted_into_a_shell() -> None:
    arguments = [
        "hfgpt",
        "pretrain",
        "--source=/home/ada/my texts",
        "--output_dir",
        "/srv/mine",
        "--model.hidden_act",
        "a b",
    ]
    assert public_command(arguments) == "hfgpt pretrain '--source=my texts' --output_dir mine --model.hidden_act 'a b'"
