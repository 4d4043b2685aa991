"""The tokenizer of a model that answers, for the commands that ask one."""

from transformers import PreTrainedTokenizerFast

from hfgpt.chat_templates import TEMPLATES, guard_chat_template, set_chat_template
from hfgpt.errors import UserError
from hfgpt.tokenization import load_tokenizer

__all__ = ["load_chat_tokenizer"]


def load_chat_tokenizer(name: str, template: str | None) -> PreTrainedTokenizerFast:
    """A tokenizer with `template`, or with its own, which keeps special tokens out of what users say in either case.

    Raises:
        UserError: If there is no such tokenizer or template, or neither is given one, or its special tokens cannot be
            kept out of text.
    """
    tokenizer = load_tokenizer(name)
    if template is not None:
        set_chat_template(tokenizer, template)
    elif not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer of {name} has no chat template, so that its model was not trained to answer: finetune it "
            f"by hfgpt instruct, or try one by --template ({', '.join(TEMPLATES)})."
        )
    else:
        guard_chat_template(tokenizer)
    return tokenizer
