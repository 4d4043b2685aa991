"""Shipped configurations, each one run to its end with the `hfgpt` command in a folder of its own.

What is shortened stands in `SHORTER`; all else is what the YAML file says. A configuration that begins with another's
model (`init_from: runs/demo/final`) is run after that one. A new configuration is run like the others.
"""

from pathlib import Path
from typing import Any

import yaml

from hfgpt.recipes.configuration import command_of, configs_folder

from .commands import Commands
from .server import LoopbackHub

__all__ = ["CONFIGS", "CONTENTS", "Runs", "shorter"]

CONFIGS = {
    path.relative_to(configs_folder()).with_suffix("").as_posix(): path
    for path in sorted(configs_folder().glob("*/*.yaml"))
}
CONTENTS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load(path.read_text(encoding="utf-8")) for name, path in CONFIGS.items()
}

# Options in place of the file's own, by recipe.
TRAINING = {"max_steps": "2", "num_train_epochs": "null", "global_batch_size": "2", "micro_batch_size": "1",
            "warmup_steps": "1", "eval_steps": "2", "logging_steps": "1", "max_eval_batches": "1"}  # fmt: skip
SHORTER = {
    "pretrain": {**TRAINING, "max_validation_documents": "8", "sample_max_new_tokens": "4"},
    "classify_train": TRAINING,
    "classify_ablate": {f"base.{name}": value for name, value in TRAINING.items()},
    "instruct": {**TRAINING, "max_new_tokens": "4", "max_test_examples": "2"},
}
SMALL_MODEL = {"model.hidden_size": "16", "model.num_hidden_layers": "2", "model.num_attention_heads": "2"}


def shorter(name: str) -> list[str]:
    """The options that make a configuration's run a matter of seconds."""
    recipe, content = name.split("/")[0], CONTENTS[name]
    options = dict(SHORTER[recipe])
    if recipe == "pretrain" and "init_from" not in content:
        options |= SMALL_MODEL
    if content.get("ngram_baselines"):
        options["ngram_baselines"] = "[1]"
    if content.get("tokenizer", "").startswith("openai-community/"):
        options["block_size"] = "64"  # 50,257 logits a token
    if content.get("torch_compile"):
        options["torch_compile"] = "false"  # compiling takes a minute, and is another test's
    return [word for option, value in options.items() for word in (f"--{option}", value)]


class Runs:
    """Runs configurations, each one once, and those before it that it builds on."""

    def __init__(self, hub: LoopbackHub, commands: Commands, folder: Path) -> None:
        self.hub = hub
        self.commands = commands
        self.folder = folder
        self.done: dict[str, str] = {}

    def run(self, name: str) -> str:
        """What the run of a configuration said."""
        if name not in self.done:
            content = CONTENTS[name]
            self.make((content.get("base") or content).get("init_from", ""))
            recipe, stem = name.split("/")
            outcome = self.commands.run(*command_of(recipe).split(), "--config", stem, *shorter(name))
            assert outcome.status == 0, f"{name} ended with status {outcome.status}:\n{outcome.output}"
            self.done[name] = outcome.output
        return self.done[name]

    def make(self, model: str) -> None:
        """Train the model of this name (`runs/demo/final`), if a configuration does."""
        for name, content in CONTENTS.items():
            if model == f"{content['output_dir']}/final":
                self.run(name)
