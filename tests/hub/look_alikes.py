"""Tiny look-alikes of everything that the shipped configurations and the READMEs name, on the Hub and in files.

The names, layouts, columns and types are those of the originals; the texts are this package's own generated ones, and
the weights are random. The tokenizer of GPT-2 is the real one where its files are at hand.
"""

import io
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import torch
from safetensors.torch import save
from transformers import GPT2Config, GPT2LMHeadModel

from hfgpt.data.instructions import generate_instructions
from hfgpt.data.messages import generate_messages, generate_unlabelled_messages
from hfgpt.data.stories import generate_stories
from hfgpt.tokenization import encoding_from_gpt2_files, fast_tokenizer, train_tokenizer

from .server import LoopbackHub

__all__ = ["DATA_SETS", "LOCAL_FILES", "MODELS", "serve_look_alikes", "write_local_files"]


def gpt2_tokenizer(real: Path | None) -> dict[str, bytes]:
    """The files of GPT-2's tokenizer as its repository has them; without the real ones, those of a small one."""
    with TemporaryDirectory() as folder:
        if real is None:
            tokenizer = train_tokenizer(generate_stories(num_stories=100), 400)
        else:
            tokenizer = fast_tokenizer(encoding_from_gpt2_files(real), model_max_length=1024)
        tokenizer.save_pretrained(folder)
        description = (Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
    model = json.loads(description)["model"]
    vocabulary = model["vocab"] | {"<|endoftext|>": len(model["vocab"])}
    merges = "".join(" ".join(merge) + "\n" for merge in model["merges"])
    return {
        "tokenizer.json": description.encode(),
        "tokenizer_config.json": b'{"model_max_length": 1024}',
        "vocab.json": json.dumps(vocabulary).encode(),
        "merges.txt": f"#version: 0.2\n{merges}".encode(),
    }


def gpt2(tokenizer: dict[str, bytes], hidden_size: int, num_layers: int) -> dict[str, bytes]:
    """A GPT-2 of random weights, in the layout that OpenAI's have on the Hub: no prefix, and the causal masks saved."""
    vocab_size = len(json.loads(tokenizer["vocab.json"]))
    special = {"bos_token_id": vocab_size - 1, "eos_token_id": vocab_size - 1}
    config = GPT2Config(vocab_size=vocab_size, n_embd=hidden_size, n_layer=num_layers, n_head=2, **special)
    torch.manual_seed(0)
    weights = GPT2LMHeadModel(config).transformer.state_dict()
    mask = torch.ones(config.n_positions, config.n_positions).tril()[None, None]
    weights |= {f"h.{layer}.attn.bias": mask.clone() for layer in range(num_layers)}
    facts = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "embd_pdrop": 0.1,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024,
        "n_embd": hidden_size, "n_head": 2, "n_layer": num_layers, "n_positions": 1024, "resid_pdrop": 0.1,
        "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
        "summary_type": "cls_index", "summary_use_proj": True, "vocab_size": vocab_size, **special,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }  # fmt: skip
    return {
        "config.json": json.dumps(facts).encode(),
        "generation_config.json": json.dumps({"_from_model_config": True, **special}).encode(),
        "model.safetensors": save(weights, metadata={"format": "pt"}),
        "README.md": b"---\nlanguage: en\nlicense: mit\n---\n# GPT-2's look-alike\n",
        **tokenizer,
    }


def parquet(rows: dict[str, list[Any]], features: datasets.Features | None = None, rows_a_group: int = 50) -> bytes:
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(rows, features).to_parquet(buffer, batch_size=rows_a_group)
    return buffer.getvalue()


def fineweb_edu() -> dict[str, bytes]:
    """Web pages with their scores: those of a crawl, and the sample `sample-10BT` in three files."""
    sample = [f"sample/10BT/{number:03d}_00000.parquet" for number in range(3)]
    files, count = {}, 150
    for number, path in enumerate([*sample, "data/CC-MAIN-2024-10/train-00000-of-00001.parquet"]):
        rows = {
            "text": list(generate_stories(num_stories=count, first=number * count)),
            "id": [f"<urn:uuid:{number}-{row}>" for row in range(count)],
            "dump": ["CC-MAIN-2024-10"] * count,
            "url": [f"https://example.org/{number}/{row}" for row in range(count)],
            "file_path": ["s3://example/segments"] * count,
            "language": ["en"] * count,
            "language_score": [0.95] * count,
            "token_count": [200] * count,
            "score": [3.1] * count,
            "int_score": [3] * count,
        }
        files[path] = parquet(rows)
    card = """---
license: odc-by
language: [en]
configs:
- config_name: default
  data_files: [{split: train, path: "data/*/*"}]
- config_name: sample-10BT
  data_files: [{split: train, path: "sample/10BT/*"}]
---
# FineWeb-Edu's look-alike
"""
    return {"README.md": card.encode(), **files}


def imdb() -> dict[str, bytes]:
    """Labelled reviews to train on and to test on, and unlabelled ones."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})

    def part(first: int, count: int, labelled: bool = True) -> bytes:
        messages = list(generate_messages(num_messages=count, first=first))
        labels = [int(message.label == "spam") if labelled else -1 for message in messages]
        return parquet({"text": [message.text for message in messages], "label": labels}, features)

    card = """---
license: other
configs:
- config_name: plain_text
  default: true
  data_files:
  - {split: train, path: "plain_text/train-*"}
  - {split: test, path: "plain_text/test-*"}
  - {split: unsupervised, path: "plain_text/unsupervised-*"}
---
# IMDB's look-alike
"""
    return {
        "README.md": card.encode(),
        "plain_text/train-00000-of-00001.parquet": part(0, 80),
        "plain_text/test-00000-of-00001.parquet": part(80, 40),
        "plain_text/unsupervised-00000-of-00001.parquet": part(120, 20, labelled=False),
    }


def alpaca_entries(count: int) -> list[dict[str, str]]:
    """Generated instructions as Alpaca writes them."""
    entries = []
    for example in generate_instructions(num_instructions=count):
        question, answer = example["messages"]
        entry = {"instruction": question["content"], "input": question["input"] or "", "output": answer["content"]}
        entries.append(entry)
    return entries


def alpaca() -> dict[str, bytes]:
    """Instructions in four columns; a few have no answer."""
    entries = alpaca_entries(300)
    for entry in entries[::100]:
        entry["output"] = ""
    rows = {key: [entry[key] for entry in entries] for key in entries[0]}
    rows["text"] = [
        f"### Instruction:\n{entry['instruction']}\n\n### Response:\n{entry['output']}" for entry in entries
    ]
    card = b"---\nlicense: cc-by-nc-4.0\nlanguage: [en]\n---\n# Alpaca's look-alike\n"
    return {"README.md": card, "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet": parquet(rows)}


MODELS = {
    "openai-community/gpt2": {"hidden_size": 32, "num_layers": 2},
    "openai-community/gpt2-medium": {"hidden_size": 48, "num_layers": 3},
}
DATA_SETS: dict[str, Callable[[], dict[str, bytes]]] = {
    "HuggingFaceFW/fineweb-edu": fineweb_edu,
    "stanfordnlp/imdb": imdb,
    "tatsu-lab/alpaca": alpaca,
}


def serve_look_alikes(hub: LoopbackHub, gpt2_files: Path | None) -> None:
    """Put them all on a Hub; `gpt2_files` is a folder with GPT-2's `encoder.json` and `vocab.bpe`."""
    tokenizer = gpt2_tokenizer(gpt2_files)
    for repo_id, sizes in MODELS.items():
        hub.add_repo(repo_id, gpt2(tokenizer, **sizes))
    for repo_id, make in DATA_SETS.items():
        hub.add_repo(repo_id, make(), "dataset")


def story_text(characters: int) -> str:
    return "\n\n".join(generate_stories(num_stories=characters // 800 + 1))[:characters]


def sms() -> str:
    messages = generate_messages(num_messages=200)
    return "".join(f"{message.label}\t{' '.join(message.text.split())}\n" for message in messages)


# The files that configurations name, which a user brings.
LOCAL_FILES: dict[str, Callable[[], str]] = {
    "the-verdict.txt": lambda: story_text(20_479),
    "tiny-shakespeare.txt": lambda: story_text(100_000),
    "sms-spam.tsv": sms,
    "unlabelled.jsonl": lambda: "".join(
        json.dumps({"text": text}) + "\n" for text in islice(generate_unlabelled_messages(num_messages=400), 300)
    ),
    "instruction-data.json": lambda: json.dumps(alpaca_entries(120)),
}


def write_local_files(folder: Path) -> None:
    """Put look-alikes of the files that a user brings into a folder."""
    for name, make in LOCAL_FILES.items():
        (folder / name).write_text(make(), encoding="utf-8")
