"""Conversations as tokens: chat templates, which of the tokens bear loss, and what a model is given to answer.

A chat template is a Jinja text that is saved with the tokenizer: transformers' `apply_chat_template`, TRL, `pipeline`
and servers write a conversation as it was written in training. The three that come along stand beside this file,
and `set_chat_template` says what it adds to them.

Ground floor: knows tokenizers, and neither models nor data.
"""

from .encoding import EncodedConversation, check_conversations, encode_chat_prompt, encode_conversations
from .example import coloured_example, printable
from .templates import TEMPLATES, guard_chat_template, set_chat_template, special_tokens_of, stop_token_ids

__all__ = [
    "TEMPLATES",
    "EncodedConversation",
    "check_conversations",
    "coloured_example",
    "encode_chat_prompt",
    "encode_conversations",
    "guard_chat_template",
    "printable",
    "set_chat_template",
    "special_tokens_of",
    "stop_token_ids",
]
