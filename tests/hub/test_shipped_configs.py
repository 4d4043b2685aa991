"""Every shipped configuration is executed to its end, in a process, with look-alikes of what it names: not only parsed.

What is shortened stands in `SHORTER`; all else is what the YAML file says. A configuration that begins with another's
model (`init_from: runs/demo/final`) is run after that one. A new configuration is run like the others.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgpt.recipes.configuration import command_of, configs_folder

from .commands import Commands
from .fixtures import environment_of
from .look_alikes import DATA_SETS, LOCAL_FILES, MODELS, serve_look_alikes, write_local_files
from .server import LoopbackHub

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

    def __init__(self, commands: Commands, folder: Path) -> None:
        self.commands = commands
        self.folder = folder
        self.done: dict[str, str] = {}

    def run(self, name: str) -> str:
        """What the run of a configuration said."""
        if name not in self.done:
            content = CONTENTS[name]
            beginning = (content.get("base") or content).get("init_from", "")
            for other, found in CONTENTS.items():
                if beginning == f"{found['output_dir']}/final":
                    self.run(other)
            recipe, stem = name.split("/")
            outcome = self.commands.run(*command_of(recipe).split(), "--config", stem, *shorter(name))
            assert outcome.status == 0, f"{name} ended with status {outcome.status}:\n{outcome.output}"
            self.done[name] = outcome.output
        return self.done[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, gpt2_files: Path | None) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("runs")
    write_local_files(folder)
    with LoopbackHub() as hub:
        serve_look_alikes(hub, gpt2_files)
        with Commands(folder, environment_of(hub, folder / "hf_home")) as commands:
            yield Runs(commands, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_configuration_runs_to_its_end(runs: Runs, name: str) -> None:
    runs.run(name)
    folder = runs.folder / CONTENTS[name]["output_dir"]
    if name.startswith("classify_ablate/"):
        assert (folder / "ablations.json").is_file()
        return
    assert (folder / "results.json").is_file()
    assert (folder / "final" / "model.safetensors").is_file()
    assert (folder / "final" / "tokenizer.json").is_file()
    recorded = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    shortened = {option.split(".")[0].removeprefix("--") for option in shorter(name)[::2]}
    assert {key: recorded[key] for key in CONTENTS[name] if key not in shortened} == {
        key: value for key, value in CONTENTS[name].items() if key not in shortened
    }


def names_of(content: Any) -> Iterator[str]:
    """Every source, model and tokenizer that a configuration names."""
    for key, value in content.items():
        if isinstance(value, dict):
            yield from names_of(value)
        elif key in ("source", "validation_source", "test_source", "init_from", "tokenizer") and value is not None:
            yield value


@pytest.mark.parametrize("name", CONFIGS)
def test_whatever_a_configuration_names_has_a_look_alike(name: str) -> None:
    made_here = {f"{content['output_dir']}/final" for content in CONTENTS.values()}
    for found in names_of(CONTENTS[name]):
        known = {*MODELS, *DATA_SETS, *LOCAL_FILES, *made_here, "train"}
        assert found in known or re.match("builtin:", found), f"tests/hub/look_alikes.py has nothing for {found}"
