"""What the tests of pushing share: a tiny saved model, and a run's folder as the recipes leave it."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from transformers import GenerationConfig

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.tokenization import train_tokenizer

CODE = [f"{name}_hfgpt.py" for name in ("configuration", "conversion", "modeling", "pooling")]
MODEL_FILES = sorted(
    ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", *CODE]
)


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    chance = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "house"]
    tokenizer = train_tokenizer([" ".join(chance.choices(words, k=9)) for _ in range(50)], 270, model_max_length=32)
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 269)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
    model = HfGptForCausalLM(HfGptConfig(vocab_size=270, **sizes, **special, initializer_range=0.3))
    model.generation_config = GenerationConfig(max_new_tokens=8, eos_token_id=269, pad_token_id=269)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model_folder(saved_once: Path, tmp_path: Path) -> Path:
    """A saved model, for the test to change."""
    return Path(shutil.copytree(saved_once, tmp_path / "model"))


@pytest.fixture
def run_folder(saved_once: Path, tmp_path: Path) -> Path:
    """The folder of a finished run, with what a training leaves beside the model."""
    folder = tmp_path / "run"
    final = Path(shutil.copytree(saved_once, folder / "final"))
    config = {
        "output_dir": str(folder),
        "source": "/data/clients/acme/letters.txt",
        "tokenizer": "openai-community/gpt2",
    }
    for path in (folder / "config.yaml", final / "run_config.yaml"):
        path.write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    (folder / "results.json").write_text(json.dumps({"steps": 1}))
    (folder / "report.json").write_text(json.dumps({"most_confident_errors": [{"text": "dear Ada"}]}))
    (folder / "samples.jsonl").write_text('{"text": "once"}\n')
    (folder / ".lock").write_text("")
    Image.new("RGB", (8, 8)).save(folder / "loss_curve.png")
    checkpoint = folder / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "optimizer.safetensors").write_bytes(b"")
    return folder
