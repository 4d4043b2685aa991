"""`hfgpt chat`: a conversation at the terminal, or questions from a pipe, one on each line."""

import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from hfgpt.chat_templates import printable
from hfgpt.errors import UserError
from hfgpt.serving.chat import ChatSession, ChatSettings
from hfgpt.serving.loading import inference_device, load_model

from .chat_tokenizer import load_chat_tokenizer
from .standard_input import lines_of_standard_input

COMMANDS = {
    "/reset": "forget what was said",
    "/save FILE": "write the conversation to a new file, as a line of JSON Lines",
    "/help": "show this",
    "/exit": "leave, as Ctrl-D does",
}
HISTORY_LENGTH = 1000  # lines typed in this and earlier sessions


def run(
    model_name: str,
    *,
    tokenizer_name: str | None,
    template: str | None,
    system: str | None,
    settings: ChatSettings,
    keep_history: bool,
) -> None:
    """Load the model and talk until the end of the input: at a terminal with line editing, else a turn for each line.

    Raises:
        UserError: If model, tokenizer or template cannot be loaded or used, or a setting is out of its range; from a
            pipe also if a line cannot be read or answered.
    """
    tokenizer = load_chat_tokenizer(tokenizer_name or model_name, template)
    model = load_model(model_name, device_map=inference_device())
    session = ChatSession(model, tokenizer, system=system, settings=settings)  # type: ignore[arg-type]
    conversation = _Conversation(session)
    if not sys.stdin.isatty():
        for line in lines_of_standard_input():
            if not conversation.take(line):
                return
        return
    _note(f"{model_name}; /help lists the commands")
    with _line_editing(keep_history):
        conversation.talk()


class _Conversation:
    """What is typed and what is printed; what is said is the session's."""

    def __init__(self, session: ChatSession) -> None:
        self.session = session
        self.has_said_that_turns_fell_out = False

    def talk(self) -> None:
        """Ask for line after line until Ctrl-D, /exit, or Ctrl-C twice in a row."""
        interruptions = 0
        while interruptions < 2:
            try:
                line = input("> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                interruptions += 1
                if interruptions == 1:
                    _note("Ctrl-C once more, or Ctrl-D, leaves")
                continue
            interruptions = 0
            try:
                with _interruptible(self.session):
                    if not self.take(line):
                        return
            except UserError as error:
                _note(str(error))
            except KeyboardInterrupt:
                print()
                _note("interrupted")

    def take(self, line: str) -> bool:
        """Obey or answer a line; False if it ends the conversation.

        Raises:
            UserError: If a command or a message is not as it should be.
        """
        if not line.strip():
            return True
        if not re.match(r"/[a-z]+(\s|$)", line):
            self._answer(line)
            return True
        command, _, argument = line.strip().partition(" ")
        if command == "/save":
            self._save(argument)
        elif argument or command not in COMMANDS:
            raise UserError(
                f"There is no command {line.strip()}: /help lists them, and a space before it makes it text."
            )
        elif command == "/reset":
            self.session.reset()
            self.has_said_that_turns_fell_out = False
            _note("all that was said is forgotten")
        elif command == "/help":
            width = max(map(len, COMMANDS))
            for name, meaning in COMMANDS.items():
                print(f"{name:{width}}  {meaning}", file=sys.stderr)
        return command != "/exit"

    def _save(self, argument: str) -> None:
        try:
            (name,) = shlex.split(argument)
        except ValueError as error:
            raise UserError("/save takes one file: /save FILE, in quotation marks if its name has a space.") from error
        self.session.save(Path(name))
        _note(f"saved in {name}")

    def _answer(self, line: str) -> None:
        is_answered = False
        for piece in self.session.reply(line):
            is_answered = is_answered or bool(piece.strip())
            print(printable(piece) if sys.stdout.isatty() else piece, end="", flush=True)
        print(flush=True)
        if self.session.num_fallen_out and not self.has_said_that_turns_fell_out:
            self.has_said_that_turns_fell_out = True
            _note("the context is full: the model no longer sees the oldest turns")
        cut = {
            "length": f"the answer was cut after {self.session.max_new_tokens} tokens (--max-new-tokens)",
            "context": "the answer was cut where the model's context ends",
            "interruption": "interrupted",
        }
        if self.session.ended_by in cut:
            _note(cut[self.session.ended_by])
        elif not is_answered:
            _note("the model gave no answer")


def _note(sentence: str) -> None:
    print(f"hfgpt: {sentence}", file=sys.stderr, flush=True)


@contextmanager
def _interruptible(session: ChatSession) -> Iterator[None]:
    """Ctrl-C ends the answer after the token at hand; once more, at once."""
    was_interrupted = False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal was_interrupted
        if was_interrupted:
            raise KeyboardInterrupt
        was_interrupted = True
        session.interrupt()

    former = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


@contextmanager
def _line_editing(keep_history: bool) -> Iterator[None]:
    """Arrow keys at the prompt, where Python has readline, and what was typed in earlier sessions."""
    try:
        import readline
    except ImportError:  # on Windows, whose terminal edits lines itself
        yield
        return
    if not keep_history:
        yield
        return
    path = _history_file()
    readline.set_history_length(HISTORY_LENGTH)
    try:
        with contextlib.suppress(FileNotFoundError):
            readline.read_history_file(path)
    except OSError as error:
        _note(f"{path}, with what was typed before, cannot be read: {error.strerror} (--no-history)")
    try:
        yield
    finally:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            readline.write_history_file(path)
        except OSError as error:
            _note(f"what was typed cannot be kept in {path}: {error.strerror} (--no-history)")


def _history_file() -> Path:
    """In the user's folder for such files (XDG Base Directory Specification), which must be an absolute path."""
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    folder = named if named.is_absolute() else Path.home() / ".local" / "state"
    return folder / "hfgpt" / "chat_history"
