"""`hfgpt chat`: a conversation at a terminal, a real one; and questions from a pipe."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hfgpt.chat_templates import set_chat_template
from hfgpt.cli.chat import _history_file
from hfgpt.serving.chat import ChatSession, ChatSettings
from hfgpt.serving.loading import load_model
from hfgpt.tokenization import extend_tokenizer, load_tokenizer

# Gives the program the terminal as its own, so that Ctrl-C typed there becomes a signal to it.
LAUNCHER = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "hfgpt.cli.main", *sys.argv[1:]])
"""
PATIENCE = 120  # seconds for a prompt that may never come, where other processes take the processor


@pytest.fixture
def answering(save, tokenizer) -> Callable[..., Path]:
    """A tiny model with a chat template, saved."""

    def write(**fields) -> Path:
        folder = save(with_tokenizer=False, **({"max_position_embeddings": 192} | fields))
        copied, _ = extend_tokenizer(tokenizer, [], [])
        set_chat_template(copied, "phi3")
        copied.save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def piped(hfgpt, monkeypatch):
    """The command with text, or bytes, on its standard input."""

    def run(text: str | bytes, *arguments: object):
        content = io.BytesIO(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(content, encoding="utf-8"))
        return hfgpt("chat", *arguments)

    return run


def answers(folder: Path, *questions: str, system: str | None = None) -> list[str]:
    settings = ChatSettings(temperature=0, max_new_tokens=5)
    session = ChatSession(load_model(folder), load_tokenizer(folder), system=system, settings=settings)
    return ["".join(session.reply(question)) for question in questions]


GREEDY = ("--temperature", 0, "--max-new-tokens", 5)


def test_each_line_of_a_pipe_is_a_turn(piped, answering) -> None:
    folder = answering()
    first, second = answers(folder, "the cat", "sat", system="dog")
    answer = piped("the cat\n\nsat\n", "--model", folder, *GREEDY, "--system", "dog")
    assert (answer.status, answer.out) == (0, f"{first}\n{second}\n")
    assert set(answer.err.splitlines()) == {"hfgpt: the answer was cut after 5 tokens (--max-new-tokens)"}


def test_commands_work_in_a_pipe_too(piped, answering, tmp_path) -> None:
    folder, saved = answering(), tmp_path / "a b.jsonl"
    text = f"the cat\n/save '{saved}'\n/reset\nsat\n/help\n/exit\nnever\n"
    first, alone = answers(folder, "the cat")[0], answers(folder, "sat")[0]
    answer = piped(text, "--model", folder, *GREEDY)
    assert (answer.status, answer.out) == (0, f"{first}\n{alone}\n")
    assert "/save FILE" in answer.err
    messages = json.loads(saved.read_text(encoding="utf-8"))["messages"]
    assert messages == [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": first}]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/rest", "There is no command /rest: /help lists them"),
        ("/reset now", "There is no command /reset now"),
        ("/save", "/save takes one file"),
        ("/save x y", "/save takes one file"),
        ("/save 'x", "/save takes one file"),
        ("/save x", "nothing was said"),
        ("the cat " * 90, "leaves no room for an answer"),
    ],
)
def test_a_line_that_cannot_be_followed_ends_a_pipe_with_a_sentence(piped, answering, line: str, sentence: str) -> None:
    assert sentence in piped(f"{line}\n", "--model", answering(), *GREEDY).sentence


def test_a_line_that_is_not_utf8_is_named(piped, answering) -> None:
    answer = piped(b"the cat\n\xff\n", "--model", answering(), *GREEDY)
    assert answer.status == 2
    assert answer.err.endswith("hfgpt: error: Line 2 of standard input is not UTF-8: convert it first.\n")


def test_paths_and_lines_after_a_space_are_text(piped, answering) -> None:
    answer = piped("/etc/passwd is what\n /reset\n", "--model", answering(), *GREEDY)
    assert answer.status == 0
    assert "forgotten" not in answer.err
    assert len(answer.out.splitlines()) >= 2


def test_oldest_turns_fall_out_and_it_is_said_once(piped, answering) -> None:
    answer = piped("the cat sat\n" * 12, "--model", answering(), *GREEDY)
    assert answer.status == 0
    assert answer.err.count("the model no longer sees the oldest turns") == 1


def test_a_model_without_a_template_is_one_sentence_or_is_given_one(piped, model_folder) -> None:
    sentence = piped("the\n", "--model", model_folder).sentence
    assert "has no chat template" in sentence
    assert "--template (alpaca, phi3, chatml)" in sentence
    assert "chatml needs the special tokens" in piped("the\n", "--model", model_folder, "--template", "chatml").sentence


def test_settings_out_of_range_are_one_sentence(piped, answering) -> None:
    options = ("--model", answering(), "--temperature", 0, "--top-k", 3)
    assert "give a temperature above 0" in piped("the\n", *options).sentence


class Terminal:
    """A terminal with the command in it: what it shows is read until something is there."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.own_end, other_end = pty.openpty()
        environment = os.environ | {"XDG_STATE_HOME": str(folder), "TERM": "dumb", "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, "chat", *arguments],
            stdin=other_end,
            stdout=other_end,
            stderr=other_end,
            start_new_session=True,
            env=environment,
        )
        os.close(other_end)
        self.shown = ""

    def read_until(self, pattern: str) -> str:
        """What is shown up to the end of the pattern; it is then behind us."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.shown)):
            ready, _, _ = select.select([self.own_end], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.shown!r}"
            try:
                self.shown += os.read(self.own_end, 4096).decode(errors="replace")
            except OSError as error:  # the program has ended
                raise AssertionError(f"no {pattern!r} in {self.shown!r}") from error
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def type(self, text: str) -> None:
        os.write(self.own_end, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C at the prompt, once the program waits there: Python overlooks one that comes right before it does."""
        program, deadline, still = psutil.Process(self.process.pid), time.monotonic() + PATIENCE, 0
        used = program.cpu_times()
        while still < 10:  # tenths of a second in which it has slept and not computed
            assert time.monotonic() < deadline, "the program never waits"
            time.sleep(0.1)
            waits = program.status() == psutil.STATUS_SLEEPING and program.cpu_times() == used
            still, used = still + 1 if waits else 0, program.cpu_times()
        self.type("\x03")

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def start(*arguments: object) -> Terminal:
        terminals.append(Terminal([*map(str, arguments)], tmp_path / "state"))
        return terminals[-1]

    yield start
    for each in terminals:
        each.process.kill()
        each.process.wait()
        os.close(each.own_end)


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal, answering) -> None:
    """In the midst of an answer that would go on to the end of a long context."""
    folder = answering(max_position_embeddings=20000)
    session = terminal("--model", folder, "--temperature", 0, "--max-new-tokens", 19000)
    session.read_until("> ")
    session.type("the cat\n")
    session.read_until(r"the cat\r\n.{8}")
    session.type("\x03")
    session.read_until("hfgpt: interrupted\r\n> ")
    session.type("/help\n")
    session.read_until("/exit +leave, as Ctrl-D does\r\n> ")
    session.interrupt()
    session.read_until("Ctrl-C once more, or Ctrl-D, leaves\r\n> ")
    session.type("/reset\n")  # the two must follow each other
    session.read_until("forgotten\r\n> ")
    session.interrupt()
    session.read_until("leaves\r\n> ")
    session.interrupt()
    assert session.wait() == 0


def test_lines_are_edited_and_remembered_for_the_next_session(terminal, answering, tmp_path) -> None:
    pytest.importorskip("readline", reason="this Python cannot edit lines")
    folder, history = answering(), tmp_path / "state" / "hfgpt" / "chat_history"
    first = terminal("--model", folder, *GREEDY)
    first.read_until("> ")
    first.type("the dog\x7f\x7f\x7fcat\n")  # backspaces
    first.read_until(r"--max-new-tokens\)\r\n> ")
    first.type("\x04")
    assert first.wait() == 0
    assert "the cat\n" in history.read_text(encoding="utf-8")
    assert history.stat().st_mode & 0o077 == 0
    second = terminal("--model", folder, *GREEDY)
    second.read_until("> ")
    second.type("\x10\n")  # Ctrl-P: the line before
    second.read_until(re.escape(answers(folder, "the cat")[0].splitlines()[0]))
    second.read_until("> ")
    second.type("/rest\n")
    second.read_until("There is no command /rest")
    second.read_until("> ")
    second.type("/exit\n")
    assert second.wait() == 0
    before = history.read_bytes()
    third = terminal("--model", folder, *GREEDY, "--no-history")
    third.read_until("> ")
    third.type("a house\n")
    third.read_until(r"--max-new-tokens\)\r\n> ")
    third.type("\x04")
    assert third.wait() == 0
    assert history.read_bytes() == before


@pytest.mark.parametrize(("named", "expected"), [("/state", "/state"), ("relative", None), ("", None), (None, None)])
def test_history_lies_in_the_users_folder_for_state(monkeypatch, tmp_path, named, expected) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if named is not None:
        monkeypatch.setenv("XDG_STATE_HOME", named)
    folder = Path(expected) if expected else tmp_path / ".local" / "state"
    assert _history_file() == folder / "hfgpt" / "chat_history"
