"""A key/value cache of fixed size whose rows come and go: what answering many prompts at once needs."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from hfgpt import HfGptConfig

__all__ = ["SlotCache"]


class SlotCache(Cache):
    """Keys and values of up to `num_slots` sequences, each as long as it happens to be.

    The sequences in use are always the first slots, so that attention reads a view and nothing is copied: a new one
    takes the first free slot, and when one ends, the last moves into its place. Each holds its tokens from position 0
    on, and the next step writes at the place that `begin_step` has been told; what stands behind is hidden by the mask.

    Args:
        config: Of the model: layers, heads and their width.
        num_slots: Sequences at once.
        capacity: Tokens of the longest.
        like: A tensor of the device and type that keys and values have.
    """

    def __init__(self, config: HfGptConfig, num_slots: int, capacity: int, *, like: Tensor) -> None:
        super().__init__(layers=[])
        assert config.num_key_value_heads is not None  # derived in the configuration's __post_init__
        shape = (num_slots, config.num_key_value_heads, capacity, config.head_dim)
        # Zeros: a number that is not finite would come through the mask.
        self.keys = [like.new_zeros(shape) for _ in range(config.num_hidden_layers)]
        self.values = [like.new_zeros(shape) for _ in range(config.num_hidden_layers)]
        self.window = config.sliding_window
        self.num_used = 0
        self._places: tuple[Tensor, Tensor] | None = None
        self._length = 0

    def admit(self, filled: DynamicCache, num_sequences: int) -> None:
        """Give the sequences that `filled` holds, from position 0 on, the first free slots."""
        slots = slice(self.num_used, self.num_used + num_sequences)
        for layer, keys, values in zip(filled.layers, self.keys, self.values, strict=True):
            assert isinstance(layer, DynamicLayer)
            assert layer.keys is not None
            assert layer.values is not None
            num_tokens = layer.keys.shape[2]
            keys[slots, :, :num_tokens] = layer.keys
            values[slots, :, :num_tokens] = layer.values
        self.num_used += num_sequences

    def remove(self, slot: int) -> None:
        """Free a slot; the last sequence moves into it."""
        self.num_used -= 1
        if slot != self.num_used:
            for tensor in (*self.keys, *self.values):
                tensor[slot] = tensor[self.num_used]

    def begin_step(self, positions: Sequence[int]) -> Tensor:
        """Say where each sequence in use writes its next token.

        Returns:
            Which tokens it may see, `(sequences, 1, 1, seen_tokens)`: all up to the new one, or a window of them.
        """
        device = self.keys[0].device
        places = torch.tensor(positions, device=device)
        self._places = (torch.arange(len(positions), device=device), places)
        self._length = max(positions) + 1
        distance = places[:, None] - torch.arange(self._length, device=device)
        visible = distance >= 0
        if self.window is not None:
            visible &= distance < self.window
        return visible[:, None, None, :]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the token of a step, `(sequences, heads, 1, head_dim)`, and return all there is to see in the layer."""
        assert self._places is not None
        rows, positions = self._places
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[rows, :, positions] = key_states[:, :, 0]
        values[rows, :, positions] = value_states[:, :, 0]
        return keys[: self.num_used, :, : self._length], values[: self.num_used, :, : self._length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that the longest sequence holds before this step."""
        return self._length - 1
