"""The loss of a language model where few of the tokens are judged, as the answers to instructions are.

Two things are not computed, and the numbers are those of the whole model, within rounding:

- the output head where no label bears loss, with GPT-2's vocabulary and 124M parameters nearly a third of all
  multiplications;
- on a CPU, the beginning that all conversations of a batch have in common more than once. In the book's style of
  prompt it is 24 tokens long, two fifths of what its instructions have.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hfgpt import HfGptForCausalLM
from hfgpt.modeling_hfgpt import IGNORE_INDEX, causal_lm_loss

__all__ = ["answer_loss"]

MIN_TOKENS_SAVED = 64
"""What a shared beginning must save at least, or passing twice through the model costs more than it saves."""


def answer_loss(model: HfGptForCausalLM, batch: Mapping[str, Tensor], num_items_in_batch: Tensor | int) -> Tensor:
    """Summed cross-entropy of the judged tokens over `num_items_in_batch`: the loss of `model(**batch, ...)`.

    Args:
        model: With the additions of LoRA or without.
        batch: `input_ids` and `shift_labels` `(batch, tokens)`, the labels already shifted and -100 where nothing is
            judged; beside them what `HfGptModel.forward` takes.
        num_items_in_batch: Judged tokens of the whole accumulated and distributed batch.
    """
    inputs = {name: value for name, value in batch.items() if name != "shift_labels"}
    num_shared = _num_shared_tokens(model, inputs, batch["shift_labels"])
    shift_labels = batch["shift_labels"][:, num_shared:].flatten()
    # Found before the model runs: on an accelerator, this waits for the device, which has nothing to do yet.
    judged = (shift_labels != IGNORE_INDEX).nonzero().squeeze(1)
    if num_shared:
        hidden_states = _pass_after_shared(model, inputs["input_ids"], num_shared)
    else:
        hidden_states = model.model(**inputs, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden_states.flatten(0, 1).index_select(0, judged))  # (judged tokens, vocabulary)
    return causal_lm_loss(logits, shift_labels=shift_labels[judged], num_items_in_batch=num_items_in_batch)


def _num_shared_tokens(model: HfGptForCausalLM, inputs: Mapping[str, Tensor], shift_labels: Tensor) -> int:
    """Tokens at the beginning that all rows have in common and in which none is judged, if it pays to share them.

    On an accelerator a small batch waits for the launch of its kernels, of which twice passing would launch twice as
    many. Dropout would be the same in all rows, and recomputing activations knows no cache.
    """
    input_ids = inputs["input_ids"]
    if torch.compiler.is_compiling() or input_ids.device.type != "cpu" or inputs.keys() != {"input_ids"}:
        return 0
    config = model.config
    if not config.is_causal or config.sliding_window is not None or (model.training and _recomputes_or_drops(model)):
        return 0
    differs = ((input_ids != input_ids[:1]) | (shift_labels != IGNORE_INDEX)).any(dim=0)
    num_shared = int(differs.int().argmax())  # the first place, and 0 if there is none
    return num_shared if num_shared * (len(input_ids) - 1) >= MIN_TOKENS_SAVED else 0


def _recomputes_or_drops(model: HfGptForCausalLM) -> bool:
    drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    return drops or model.config.attention_dropout > 0 or model.model.gradient_checkpointing


def _pass_after_shared(model: HfGptForCausalLM, input_ids: Tensor, num_shared: int) -> Tensor:
    """Hidden states `(batch, tokens - num_shared, hidden)` of all but the first tokens, which are passed through once.

    All rows read the keys and values of the first one's beginning, and through them its gradient is the sum of theirs.
    """
    cache = model.model(input_ids=input_ids[:1, :num_shared], use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(input_ids))
    return model.model(input_ids=input_ids[:, num_shared:], past_key_values=cache).last_hidden_state
