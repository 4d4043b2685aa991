"""The conversations that `instruction.py` trains on: the book's, or random tokens that are as long."""

import json
import os
import random
from pathlib import Path
from typing import Any

from contenders import Size
from measuring import draw_length

from hfgpt.chat_templates import EncodedConversation, encode_conversations, set_chat_template
from hfgpt.tokenization import load_tokenizer

NUM_CONVERSATIONS = 935  # 85% of 1,100
END = 50256

# GPT-2 tokens of a prompt and of an answer in the training part of the book's file: so many percent of them have no
# more than so many. Where the file itself is not at hand, lengths are drawn from these.
PROMPT_LENGTHS = {
    0: 35, 5: 37, 10: 38, 20: 39, 30: 40, 40: 40, 50: 41, 60: 43, 70: 49, 80: 51, 90: 54, 95: 56, 99: 61, 100: 65,
}  # fmt: skip
ANSWER_LENGTHS = {
    0: 2, 5: 6, 10: 7, 20: 9, 30: 10, 40: 11, 50: 12, 60: 13, 70: 14, 80: 16, 90: 20, 95: 26, 99: 41, 100: 51,
}  # fmt: skip


def conversations(size: Size) -> tuple[list[EncodedConversation], str]:
    """The conversations to train on, and what they are."""
    folder = os.environ.get("HFGPT_TEST_DATA")
    if folder:
        entries = json.loads((Path(folder) / "instruction-data.json").read_text(encoding="utf-8"))[:NUM_CONVERSATIONS]
        tokenizer = load_tokenizer(Path(folder) / "gpt2")
        set_chat_template(tokenizer, "alpaca")
        encoded = encode_conversations(tokenizer, [_messages(entry) for entry in entries])
        described = "entries of instruction-data.json"
    else:
        encoded, described = (
            drawn_conversations(random.Random(123)),
            "random tokens, as long as the entries of instruction-data.json",
        )
    end = size.vocabulary - 1
    encoded = [EncodedConversation([end if id == END else id % end for id in ids], mask) for ids, mask in encoded]
    tokens = sum(len(ids) for ids, _ in encoded)
    judged = sum(sum(mask) for _, mask in encoded)
    return encoded, (
        f"{len(encoded)} {described}, {tokens / len(encoded):.1f} tokens on average, "
        f"of which {judged / len(encoded):.1f} bear loss"
    )


def _messages(entry: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": entry["instruction"], "input": entry["input"] or None},
        {"role": "assistant", "content": entry["output"]},
    ]


def drawn_conversations(chance: random.Random) -> list[EncodedConversation]:
    """Random tokens in place of the file."""
    encoded = []
    for _ in range(NUM_CONVERSATIONS):
        prompt, answer = draw_length(PROMPT_LENGTHS, chance), draw_length(ANSWER_LENGTHS, chance)
        ids = [*(chance.randrange(END) for _ in range(prompt + answer - 1)), END]
        encoded.append(EncodedConversation(ids, [False] * prompt + [True] * answer))
    return encoded
