"""The loss of a language model where few of the tokens are judged, as the answers to instructions are."""

from collections.abc import Mapping

from torch import Tensor

from hfgpt import HfGptForCausalLM
from hfgpt.modeling_hfgpt import IGNORE_INDEX, causal_lm_loss

__all__ = ["answer_loss"]


def answer_loss(model: HfGptForCausalLM, batch: Mapping[str, Tensor], num_items_in_batch: Tensor | int) -> Tensor:
    """Summed cross-entropy of the judged tokens over `num_items_in_batch`: the loss of `model(**batch, ...)`.

    The output head, with GPT-2's vocabulary and 124M parameters nearly a third of all multiplications, is computed
    where a label bears loss, and nowhere else.

    Args:
        model: With the additions of LoRA or without.
        batch: `shift_labels` `(batch, tokens)`, already shifted, -100 where nothing is judged; beside them what
            `HfGptModel.forward` takes.
        num_items_in_batch: Judged tokens of the whole accumulated and distributed batch.
    """
    inputs = {name: value for name, value in batch.items() if name != "shift_labels"}
    shift_labels = batch["shift_labels"].flatten()
    # Found before the model runs: on an accelerator, this waits for the device, which has nothing to do yet.
    judged = (shift_labels != IGNORE_INDEX).nonzero().squeeze(1)
    hidden_states = model.model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    logits = model.lm_head(hidden_states.index_select(0, judged))  # (judged tokens, vocabulary)
    return causal_lm_loss(logits, shift_labels=shift_labels[judged], num_items_in_batch=num_items_in_batch)
