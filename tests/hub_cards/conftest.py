"""The facts of a run that never was, as `collect_facts` would give them; tests change what they are about."""

import copy
from typing import Any

import pytest


def measured(value: float | None, interval: list[float] | None = None) -> dict[str, Any]:
    return {"value": value, "interval": interval}


def source(name: str, kind: str = "builtin", **fields: Any) -> dict[str, Any]:
    known = {
        "source": name,
        "kind": kind,
        "use": "training",
        "split": None,
        "config": None,
        "description": None,
        "repository": None,
        "licence": "apache-2.0" if kind == "builtin" else None,
        "languages": ["en"] if kind == "builtin" else [],
        "parts": [
            {"name": "train", "unit": "texts", "examples": 1200, "tokens": 34567, "fingerprint": "0123456789abcdef"}
        ],
        "lines": ["train: 1,200 texts"],
    }
    return known | fields


def repository(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    known = {"id": name, "kind": kind, "revision": "a" * 40, "asked_for": None, "licence": "mit", "languages": ["en"]}
    return known | {"problem": None} | fields


FACTS: dict[str, Any] = {
    "format_version": 1,
    "recipe": "pretrain",
    "name": "mine",
    "finished": "2026-01-02",
    "model": {
        "class": "HfGptForCausalLM",
        "parameters": 123456,
        "dtype": "F32",
        "trained": "everything",
        "trained_parameters": 123456,
        "shape": {
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "vocab_size": 1024,
            "max_position_embeddings": 128,
        },
        "labels": [],
    },
    "weights": {"sha256": {"model.safetensors": "1" * 64}},
    "tokenizer": {"ids": 1024, "origin": "trained on the training text", "fingerprint": "fedcba9876543210"},
    "lineage": {"parent": None, "num_resumptions": 0},
    "data": [source("builtin:stories")],
    "licence": "apache-2.0",
    "training": {
        "steps": 100,
        "planned_steps": 100,
        "targets": 25600,
        "unit": "tokens",
        "skipped_steps": 0,
        "stopped": None,
        "training_seconds": 61.0,
        "command_seconds": 150.0,
        "validation": [{"step": 0, "loss": 6.9}, {"step": 100, "loss": 1.5}],
    },
    "hyperparameters": {"changed": {"max_steps": 100}, "defaults": {"seed": 42}},
    "hardware": {
        "device": "cpu",
        "accelerators": [],
        "num_processes": 1,
        "cpu": "A Processor",
        "cpu_cores": 2,
        "threads": 2,
        "memory_gib": 8.0,
        "system": "Linux x86_64",
        "mixed_precision": "no",
    },
    "energy": {"kilowatt_hours": {}},
    "evaluation": [
        {
            "title": "Next tokens",
            "split": "validation",
            "num_examples": 200,
            "unit": "blocks",
            "method": "a bootstrap",
            "metrics": [{"key": "perplexity", "name": "perplexity", "type": "perplexity", "style": "number"}],
            "rows": [
                {"name": "bigram", "values": {"perplexity": measured(15.675)}},
                {"name": "this model", "this_model": True, "values": {"perplexity": measured(4.48, [4.25, 4.75])}},
            ],
            "remarks": [],
        }
    ],
    "examples": [],
    "pictures": [{"file": "loss_curve.png", "caption": "Loss"}],
    "launch": "hfgpt pretrain --config demo",
    "git": {"commit": "c" * 40, "changed_since": False},
    "versions": {"python": "3.11.7", "hfgpt": "0.1.0"},
}


@pytest.fixture
def facts() -> dict[str, Any]:
    return copy.deepcopy(FACTS)
