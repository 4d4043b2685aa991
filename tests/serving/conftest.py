"""What the tests of serving share: a tiny model with its tokenizer, saved and loaded."""

import copy
import random
from pathlib import Path

import pytest
import torch

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification
from hfgpt.tokenization import train_tokenizer

CONTEXT = 24


@pytest.fixture(scope="session")
def tokenizer():
    chance = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "house"]
    texts = [" ".join(chance.choice(words) for _ in range(9)) for _ in range(50)]
    return train_tokenizer(texts, 270, model_max_length=CONTEXT)


@pytest.fixture(scope="session")
def model(tokenizer) -> HfGptForCausalLM:
    """Large initial weights, so that its distributions are far from uniform."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": CONTEXT}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    return HfGptForCausalLM(HfGptConfig(vocab_size=270, **sizes, **special, initializer_range=0.3)).eval()


@pytest.fixture
def model_folder(tmp_path: Path, model, tokenizer) -> Path:
    """The two, saved: a fresh copy for each test, to be damaged at will."""
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def classifier_folder(tmp_path: Path, tokenizer) -> Path:
    """A classifier of three classes with its tokenizer, saved as the recipe saves them: padded and cut on the right."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": CONTEXT}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    classes = {"id2label": {0: "cats", 1: "dogs", 2: "houses"}, "label2id": {"cats": 0, "dogs": 1, "houses": 2}}
    config = HfGptConfig(vocab_size=270, **sizes, **special, **classes, initializer_range=0.3)
    model = HfGptForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight, std=0.5)
    folder = tmp_path / "classifier"
    model.save_pretrained(folder)
    saved = copy.deepcopy(tokenizer)
    saved.init_kwargs |= {"padding_side": "right", "truncation_side": "right"}
    saved.padding_side = saved.truncation_side = "right"
    saved.save_pretrained(folder)
    return folder
