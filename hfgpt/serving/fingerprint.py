"""What decides a model's answers, as one hash: a run that goes on must be one of the same model."""

import json

import xxhash
from torch import uint8
from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["fingerprint_of"]


def fingerprint_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *settings: object) -> str:
    """A hash of weights, configuration and tokenizer, and of what else there is."""
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    digest = xxhash.xxh3_64(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weights in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.cpu().contiguous().view(-1).view(uint8).numpy())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    digest.update(" ".join(map(str, settings)).encode())
    return digest.hexdigest()
