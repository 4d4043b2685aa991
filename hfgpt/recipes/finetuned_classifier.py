"""Which part of a classifier is trained, and no more computed than that needs (the book's section 6.5).

A classifier is a trunk, which is frozen, and what stands above it, which is trained. Three things are not computed:

- gradients in the trunk, and what it would keep for them;
- in the last block, everything but keys and values at the positions that are not pooled, for nobody reads them;
- the trunk at all, where its states are given (`hfgpt.recipes.frozen_cache` computes them once).

The numbers are those of the whole model, within rounding.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from hfgpt import HfGptForSequenceClassification, HfGptModel
from hfgpt.errors import UserError
from hfgpt.modeling_hfgpt import IGNORE_INDEX, HfGptLayer, eager_attention_forward, rotary_angles, rotate
from hfgpt.pooling_hfgpt import pool, pooled_position, real_tokens

from .lora import add_lora, describe_trained, merged_weights

__all__ = ["FinetunedClassifier", "Trainable", "last_block_at", "weighted_cross_entropy"]

Trainable = Literal["head", "last_block", "last_n_blocks", "all", "lora"]


class FinetunedClassifier(nn.Module):
    """A classifier of which a part is trained; the frozen part is never in training mode and has no gradients.

    Args:
        model: The classifier. It is changed in place: what is frozen needs no gradients, and LoRA adds to it.
        trainable: `"head"` trains the head alone; `"last_block"` the last block, the final norm and the head (the
            book's way); `"last_n_blocks"` as many blocks as `num_trainable_blocks` says, norm and head; `"all"`
            everything; `"lora"` the head and a low-rank addition to every matrix of the blocks (Hu et al. 2021).
        num_trainable_blocks: Read with `"last_n_blocks"`.
        lora_rank, lora_alpha, lora_dropout: See `hfgpt.recipes.lora.add_lora`.

    Attributes:
        trainable: As given.
        num_frozen_blocks: Blocks of the trunk; None where nothing is frozen, with `"all"` and `"lora"`.

    Raises:
        UserError: If there are not so many blocks, if there is one class only, or if peft is needed and not installed.
    """

    def __init__(
        self,
        model: HfGptForSequenceClassification,
        trainable: Trainable = "last_block",
        *,
        num_trainable_blocks: int = 2,
        lora_rank: int = 16,
        lora_alpha: float = 16.0,
        lora_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        body, num_blocks = model.model, model.config.num_hidden_layers
        if model.config.num_labels is None or model.config.num_labels < 2:
            raise UserError(f"A classifier needs two classes or more, but num_labels is {model.config.num_labels}.")
        if trainable == "last_n_blocks" and not 1 <= num_trainable_blocks <= num_blocks:
            raise UserError(f"num_trainable_blocks is {num_trainable_blocks}, but the model has {num_blocks} blocks.")
        self.model = model
        self.trainable = trainable
        frozen_blocks = {
            "head": num_blocks,
            "last_block": num_blocks - 1,
            "last_n_blocks": num_blocks - num_trainable_blocks,
        }
        self.num_frozen_blocks = frozen_blocks.get(trainable)
        model.requires_grad_(True)
        if trainable == "lora":
            add_lora(model, lora_rank, lora_alpha, lora_dropout, also_trained=[model.score])
        for module in self._frozen_modules():
            module.requires_grad_(False)
        # Blocks that run on all positions, in the trunk and above it; the last one does so only where all are pooled.
        stop = num_blocks if model.config.classifier_pooling == "mean" else num_blocks - 1
        boundary = stop if self.num_frozen_blocks is None else min(self.num_frozen_blocks, stop)
        # In a tuple: these share the model's modules, which are not to be registered twice.
        self._parts = (_from_tokens(body, body.layers[:boundary]), _from_states(body, body.layers[boundary:stop]))
        self.train(model.training)

    def _frozen_modules(self) -> list[nn.Module]:
        body = self.model.model
        if self.num_frozen_blocks is None:
            return []
        if self.trainable == "head":
            return [body]
        embeddings = [module for name, module in body.named_children() if name not in ("layers", "norm")]
        return [*embeddings, *body.layers[: self.num_frozen_blocks]]

    def train(self, mode: bool = True) -> "FinetunedClassifier":
        """Set the mode of what is trained; the trunk stays in evaluation mode, without dropout."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def gradient_checkpointing_enable(self) -> None:
        """Recompute the trained blocks' activations in the backward pass, those of the last block aside."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def describe(self) -> str:
        """What is trained, in words and numbers."""
        words = {
            "head": "the head",
            "last_block": "the last block, the final norm and the head",
            "last_n_blocks": "the last {blocks} blocks, the final norm and the head",
            "all": "everything",
            "lora": "the head, and low-rank additions to every matrix of the blocks",
        }[self.trainable].format(blocks=self.model.config.num_hidden_layers - (self.num_frozen_blocks or 0))
        return f"{words}: {describe_trained(self)}"

    def trunk_states(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the trunk makes of texts: all that the trained part needs of them, and the same in every epoch.

        Args:
            input_ids: Token ids `(batch, tokens)`.
            attention_mask: `(batch, tokens)`, 1 for a token and 0 for padding on either side. Default: no padding.

        Returns:
            The hidden states `(batch, tokens, hidden)` that the first trained block takes; where the head alone is
            trained, what it takes, `(batch, hidden)`. They have no gradient.

        Raises:
            ValueError: If nothing is frozen.
        """
        if self.num_frozen_blocks is None:
            raise ValueError(
                f"With trainable = {self.trainable!r} there is no frozen trunk: give input_ids to forward."
            )
        for module in self._frozen_modules():
            module.eval()  # somebody may have called train() of the model within
        with torch.no_grad():
            states = self._parts[0](input_ids, attention_mask, use_cache=False).last_hidden_state
            return self._pooled(states, attention_mask) if self.trainable == "head" else states

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        trunk_states: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        class_weights: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Class logits `(batch, num_labels)`, and the loss if there are labels.

        Args:
            input_ids: Token ids `(batch, tokens)`; or give
            trunk_states: What `trunk_states()` has made of them.
            attention_mask: `(batch, tokens)`, 1 for a token and 0 for padding on either side. Default: no padding.
            labels: Numbers of classes `(batch,)`.
            num_items_in_batch: See `weighted_cross_entropy`, as the next.
            class_weights: `(num_labels,)`.

        Raises:
            ValueError: If both or neither of `input_ids` and `trunk_states` are given.
        """
        if (input_ids is None) == (trunk_states is None):
            raise ValueError("Give exactly one of input_ids and trunk_states.")
        if input_ids is not None:
            if self.num_frozen_blocks is not None:
                trunk_states = self.trunk_states(input_ids, attention_mask)
            else:
                trunk_states = self._parts[0](input_ids, attention_mask, use_cache=False).last_hidden_state
        assert trunk_states is not None
        pooled = trunk_states if self.trainable == "head" else self._pooled(trunk_states, attention_mask)
        logits = self.model.score(pooled)
        loss = None
        if labels is not None:
            loss = weighted_cross_entropy(logits, labels, class_weights, num_items_in_batch)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _pooled(self, states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """One vector a text after the final norm, `(batch, hidden)`, from the states after the trunk's blocks."""
        body, pooling, rest = self.model.model, self.model.config.classifier_pooling, self._parts[1]
        if len(rest.layers):
            states = rest(inputs_embeds=states, attention_mask=attention_mask, use_cache=False).last_hidden_state
        if pooling == "mean":
            return pool(body.norm(states), attention_mask, pooling)
        real = real_tokens(states, attention_mask)
        last_block = body.layers[self.model.config.num_hidden_layers - 1]
        return body.norm(last_block_at(last_block, states, real, pooled_position(real, pooling)))

    def plain_weights(self, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Weights of the plain classifier, LoRA's additions merged, for `model.save_pretrained(state_dict=...)`.

        Args:
            weights: A copy of what `state_dict()` of this module gave. Default: those that it holds now.
        """
        return {name.removeprefix("model."): weight for name, weight in merged_weights(self, weights).items()}


class _NoPositions(nn.Module):
    """In place of learned positions, which the states have already."""

    def forward(self, position_ids: Tensor) -> Tensor:
        return torch.zeros((), device=position_ids.device)


def _from_tokens(body: HfGptModel, layers: nn.ModuleList) -> HfGptModel:
    """The model's embeddings and some of its blocks, with all that `HfGptModel.forward` knows of masks."""
    with torch.device("meta"):  # weights of its own are made nowhere, and replaced
        part = HfGptModel(body.config)
    for name, module in body.named_children():
        setattr(part, name, module)
    part.layers, part.norm = layers, nn.Identity()
    return part


def _from_states(body: HfGptModel, layers: nn.ModuleList) -> HfGptModel:
    """Some of the model's blocks, which take `inputs_embeds` as they come."""
    part = _from_tokens(body, layers)  # with its dropout, which the trunk has: it is never in training mode
    if body.config.position_embedding_type == "learned":
        part.embed_positions = _NoPositions()  # type: ignore[assignment]
    return part


def last_block_at(layer: HfGptLayer, hidden_states: Tensor, real: Tensor, position: Tensor) -> Tensor:
    """What a block makes of one position of each text, `(batch, hidden)`: `HfGptLayer.forward`, less what nobody reads.

    Keys and values are needed of all tokens; the query, and everything after attention, of that position alone.
    Attention is the equation written out, whatever the model's implementation is: for one query there is no
    quadratic matrix to save.

    Args:
        layer: The block.
        hidden_states: What it takes, `(batch, tokens, hidden)`.
        real: Which tokens are no padding, boolean `(batch, tokens)`.
        position: The position in each text, `(batch,)`.
    """
    attention, config = layer.self_attn, layer.self_attn.config
    rows = torch.arange(len(position), device=position.device)
    normed = layer.input_layernorm(hidden_states)

    def by_head(features: Tensor) -> Tensor:  # (batch, tokens, features) -> (batch, heads, tokens, head_dim)
        return features.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    query = by_head(attention.q_proj(normed[rows, position].unsqueeze(1)))  # (batch, heads, 1, head_dim)
    key, value = by_head(attention.k_proj(normed)), by_head(attention.v_proj(normed))
    if config.position_embedding_type == "rotary":
        position_ids = (real.long().cumsum(dim=-1) - 1).clamp(min=0)  # padding is not counted
        rotation = rotary_angles(position_ids, config, hidden_states.dtype)  # (batch, 1, tokens, head_dim), twice
        key = rotate(key, *rotation)
        query = rotate(query, *(angles[rows, :, position].unsqueeze(2) for angles in rotation))

    index = torch.arange(real.shape[1], device=real.device)
    ahead = index - position[:, None]  # (batch, tokens): how far each token stands after the position
    visible = real & (ahead <= 0) if config.is_causal else real
    if config.sliding_window is not None:
        visible = visible & (ahead.abs() < config.sliding_window)
    mask = torch.zeros(visible.shape, dtype=query.dtype, device=query.device)
    mask = mask.masked_fill(~visible, torch.finfo(query.dtype).min)[:, None, None]  # (batch, 1, 1, tokens)

    dropout = config.attention_dropout if attention.training else 0.0
    context, _ = eager_attention_forward(attention, query, key, value, mask, attention.scaling, dropout)
    attended = attention.o_proj(context.flatten(1))  # (batch, 1, heads, head_dim) -> (batch, hidden)
    residual = hidden_states[rows, position] + layer.residual_dropout(attended)
    return residual + layer.residual_dropout(layer.mlp(layer.post_attention_layernorm(residual)))


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    r"""Cross-entropy of the right class (section 6.6), in which classes may weigh unequally.

    $$ L = -\frac{1}{N} \sum_i w_{y_i} \log p_i(y_i) $$

    With weights $w_c = N / (C\, n_c)$ of C classes of $n_c$ texts each they add up to N over the training texts, so
    that N is the number of texts with weights and without.

    Args:
        logits: `(batch, classes)`.
        labels: Numbers of classes `(batch,)`; -100 bears no loss.
        class_weights: w, `(classes,)`. Default: 1.
        num_items_in_batch: N. Default: the number of labels in this call. Given the number in the whole accumulated
            and distributed batch, losses of its parts add up to the loss of the whole.
    """
    weight = None if class_weights is None else class_weights.to(logits.device, torch.float32)
    total = F.cross_entropy(logits.float(), labels.to(logits.device), weight=weight, reduction="sum")
    return total / ((labels != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch)
