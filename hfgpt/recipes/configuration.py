"""The one configuration system: typed dataclasses, filled from a named YAML file, overridden on the command line."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from hfgpt import HfGptConfig
from hfgpt.errors import UserError

__all__ = [
    "command_of",
    "config_from_fields",
    "configs_folder",
    "find_config",
    "model_field_problems",
    "parse_config",
    "shipped_configs",
]


class _Config(Protocol):
    def problems(self) -> list[str]: ...


ConfigT = TypeVar("ConfigT", bound=_Config)

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the text under each field is its help


def configs_folder() -> Path:
    """The folder of shipped recipes: in the package where it is installed, beside it in a checkout."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "recipes" / "configs"


def shipped_configs(recipe: str) -> dict[str, Path]:
    """The YAML files that come with hfgpt for one recipe, by name."""
    return {path.stem: path for path in sorted((configs_folder() / recipe).glob("*.yaml"))}


def find_config(recipe: str, name_or_path: str) -> Path:
    """The YAML file that a name or path means.

    Raises:
        UserError: If there is none.
    """
    shipped = shipped_configs(recipe)
    if name_or_path in shipped:
        return shipped[name_or_path]
    if Path(name_or_path).is_file():
        return Path(name_or_path)
    raise UserError(
        f"There is no configuration {name_or_path!r}: give the path of a YAML file or one of {', '.join(shipped)}."
    )


def command_of(recipe: str) -> str:
    """The command that runs a recipe, after the folder of its configurations: `hfgpt classify train`."""
    return f"hfgpt {recipe.replace('_', ' ')}"


def config_parser(recipe: str, config_class: type, description: str) -> ArgumentParser:
    """The parser of a recipe: `--config NAME|PATH`, then any field of `config_class`."""
    parser = ArgumentParser(prog=command_of(recipe), description=description, exit_on_error=False)
    names = ", ".join(shipped_configs(recipe))
    parser.add_argument("--config", action="config", help=f"A YAML file, or the name of a shipped one: {names}.")
    parser.add_class_arguments(config_class)
    return parser


def parse_config(
    recipe: str,
    config_class: type[ConfigT],
    description: str,
    arguments: Sequence[str],
) -> ConfigT:
    """Fill `config_class` from the YAML file, then from the other options, wherever `--config` stands among them.

    Both `--max_steps 5` and `--max-steps=5` are understood; of two options of one name the later one counts.

    Raises:
        UserError: If an option is unknown, a value has the wrong type, or values do not go together.
    """
    parser = config_parser(recipe, config_class, description)
    try:
        namespace = parser.parse_args(_normalise(recipe, arguments))
        config = config_class(**{name: value for name, value in vars(namespace).items() if name != "config"})
    except ArgumentError as error:
        message = " ".join(str(error).split())
        raise UserError(f"{message} ({command_of(recipe)} --help lists the options)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The YAML file given by --config cannot be read: {error}.") from error
    _refuse_problems(config)
    return config


def config_from_fields(recipe: str, config_class: type[ConfigT], fields: Mapping[str, Any]) -> ConfigT:
    """Fill `config_class` from fields, of the types that YAML has.

    Raises:
        UserError: As `parse_config`.
    """
    parser = config_parser(recipe, config_class, "")
    try:
        namespace = parser.parse_object(dict(fields))
    except ArgumentError as error:
        raise UserError(" ".join(str(error).split())) from error
    config = config_class(**{name: value for name, value in vars(namespace).items() if name != "config"})
    _refuse_problems(config)
    return config


def _refuse_problems(config: _Config) -> None:
    problems = config.problems()
    if problems:
        raise UserError(" ".join(problems))


def _normalise(recipe: str, arguments: Sequence[str]) -> list[str]:
    """Options with underscores in their names, after `--config` with the file's path in place of a shipped name.

    jsonargparse reads from left to right: a `--config` that stood last would undo every option before it.
    """
    configs: list[str] = []
    options: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if not re.match(r"--[a-z]", name):
            options.append(argument)
            continue
        name = "--" + name[2:].replace("-", "_")
        if name == "--config":
            given = value if equals else next(remaining, None)
            configs += ["--config"] if given is None else ["--config", str(find_config(recipe, given))]
        else:
            options.append(name + equals + value)
    return configs + options


def model_field_problems(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong with the names of fields of `HfGptConfig` that a recipe's `model` gives, a sentence each."""
    found = []
    # Its own fields only: not those which every configuration of transformers inherits, such as dtype.
    unknown = sorted(set(fields) - set(HfGptConfig.__annotations__) - set(HfGptConfig.attribute_map))
    if unknown:
        found.append(f"model has no field {', '.join(unknown)}: see hfgpt.HfGptConfig.")
    for alias, name in HfGptConfig.attribute_map.items():
        if alias in fields and name in fields:
            found.append(f"model gives {name} twice, also as {alias}: leave one of them out.")
    return found
