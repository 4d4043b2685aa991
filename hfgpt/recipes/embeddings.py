"""A tokenizer's ids and a model's rows: that there are enough, and where those of new tokens begin."""

from typing import Any

import torch

from hfgpt import HfGptPreTrainedModel
from hfgpt.errors import UserError

__all__ = ["make_room", "refuse_large_tokenizer"]


def make_room(model: HfGptPreTrainedModel, num_ids: int, num_new: int) -> list[str]:
    r"""Give a trained model rows for the tokens that were added, each at the mean of the rows that it has learned.

    By Jensen's inequality $e^{h \cdot \bar w} \le \overline{e^{h \cdot w}}$, so k new tokens take no more than
    k / (V + k) of the probability from the V old ones, whatever the hidden state h (Hewitt 2021, "Initializing New Word
    Embeddings for Pretrained Language Models"). The logits of the old ids stay as they are. New ids take the rows that
    the model has to spare, such as those of a vocabulary padded to 50,304; where these do not suffice, it grows.

    Args:
        num_ids: Of the tokenizer, the new ones among them.
        num_new: How many of the last ids are new.

    Returns:
        What was done, in a line; none if no tokens were added.

    Raises:
        UserError: If the model has fewer rows than the tokenizer had ids.
    """
    if not num_new:
        return []
    num_rows, num_known = model.config.vocab_size, num_ids - num_new
    refuse_large_tokenizer(num_known, model)
    if num_ids > num_rows:
        model.resize_token_embeddings(num_ids, mean_resizing=False)  # ties what was tied
    embeddings: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]  # of one tensor where tied
    with torch.no_grad():
        for layer in embeddings:
            layer.weight[num_known:num_ids] = layer.weight[:num_known].mean(dim=0)
    spare = min(num_ids, num_rows) - num_known
    return [
        f"embeddings: the last {num_ids - num_known:,} ids begin at the mean of the others"
        + (f", {spare:,} of them in rows that the model had to spare" if spare else "")
    ]


def refuse_large_tokenizer(num_ids: int, model: HfGptPreTrainedModel) -> None:
    """Check that every id has a row of the model's.

    Raises:
        UserError: If not.
    """
    if num_ids > model.config.vocab_size:
        raise UserError(
            f"The tokenizer has {num_ids} ids, but the model's vocabulary only {model.config.vocab_size}: "
            "use the tokenizer that the model was trained with."
        )
