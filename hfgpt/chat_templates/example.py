"""One conversation as its tokens, for the eye: what bears loss, what is only read, and which tokens are special."""

from itertools import groupby

from rich.text import Text
from transformers import PreTrainedTokenizerFast

from .encoding import EncodedConversation

__all__ = ["coloured_example", "printable"]

BEARS_LOSS, READ_ONLY, SPECIAL = "green", "dim", "bold reverse"
BEFORE, AFTER = "[[", "]]"
"""Around what bears loss, for those who see no colours."""

_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """A text whose characters cannot steer the terminal: they are written as escapes."""
    return text.translate(_CONTROL_CHARACTERS)


def coloured_example(tokenizer: PreTrainedTokenizerFast, encoded: EncodedConversation) -> Text:
    """The text of a conversation, with what bears loss green and between [[ and ]], the rest dim, special tokens
    reversed, and a line that says so.

    Characters that would steer the terminal are written as escapes.
    """  # noqa: D205
    special_ids = set(tokenizer.all_special_ids)
    num_loss = sum(encoded.bears_loss)
    text = Text()
    text.append(f"{num_loss} of {len(encoded.input_ids)} tokens bear loss: ", style="bold")
    text.append(f"{BEFORE}these{AFTER}", style=BEARS_LOSS)
    text.append(", ")
    text.append("these are only read", style=READ_ONLY)
    text.append(", ")
    text.append("special tokens", style=SPECIAL)
    text.append("\n")
    tokens = list(zip(encoded.input_ids, encoded.bears_loss, strict=True))
    for bears_loss, run in groupby(tokens, key=lambda token: token[1]):
        style = BEARS_LOSS if bears_loss else READ_ONLY
        text.append(BEFORE if bears_loss else "", style=style)
        # Characters may be spread over several tokens, so that what stands together is decoded together.
        for is_special, same in groupby((id for id, _ in run), key=special_ids.__contains__):
            decoded = printable(str(tokenizer.decode(list(same))))
            text.append(decoded, style=f"{style} {SPECIAL}" if is_special else style)
        text.append(AFTER if bears_loss else "", style=style)
    return text
