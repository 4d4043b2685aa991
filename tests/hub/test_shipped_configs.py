"""Every shipped configuration is executed to its end, in a process, with look-alikes of what it names."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from .look_alikes import DATA_SETS, LOCAL_FILES, MODELS
from .runs import CONFIGS, CONTENTS, Runs, shorter


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
