"""Text as it may be published: without the folders of the machine on which it was written."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["public_command", "public_text", "public_value"]

# What begins a path that says where somebody keeps things: /, ~, ~name, .., a drive or a share of Windows. What has no
# second part, such as "/help", says nothing.
_PLACE = re.compile(r"(?:file://)?(?:/[^\s/]+/\S|~[\w.-]*(?:/|$)|\.\.(?:/|$)|[A-Za-z]:[\\/]|\\\\)")
# The same within a sentence, where a path has no spaces and is no part of a URL or of "and/or"; "/help" is none.
_PLACE_INSIDE = re.compile(
    r"""(?: (?<=^) | (?<=[\s'"=(\[{,:;<`]) )
    (?: (?:file://)? (?:/[^\s'"/,;:)\]}>`|]+){2,}/?
      | (?:~[\w.-]*|\.\.) (?:/[^\s'"/,;:)\]}>`|]+)+/?
      | (?:[A-Za-z]:[\\/]|\\\\(?=\w))[^\s'",;)\]}>`|]+ )""",
    re.VERBOSE,
)
# Folders that are called after people.
_HOME = re.compile(r"^(?:file://)?(?:/(?:home|Users)/[^/]+|[A-Za-z]:[\\/]Users[\\/][^\\/]+|/root(?=/|$))")
# Folders whose own names tell nothing without that of the run they belong to.
_PART_OF_A_RUN = re.compile(r"final|checkpoint-\d+")
# What is told to a model, and is no place: "/imagine a/b" stays. Should there be one in it, the push is refused.
_SAID = ("sample_prompts", "system_prompt", "prompt", "text", "expected", "added_tokens", "added_special_tokens")


def public_text(text: str) -> str:
    """A text in which each path outside the working folder is cut down to its last component.

    Paths relative to the working folder stay as they were written; of `/home/ada/runs/mine/final` stays `mine/final`.
    """
    if _PLACE.match(text) and "\n" not in text:
        return _last_component(text)
    return _PLACE_INSIDE.sub(lambda found: _last_component(found[0]), text)


def _last_component(path: str) -> str:
    path = _HOME.sub("~", path)
    parts = [part for part in re.split(r"[\\/]", path) if part not in ("", ".", "..", "file:")]
    if len(parts) > 1 and _PART_OF_A_RUN.fullmatch(parts[-1]) and not parts[-2].startswith("~"):
        return "/".join(parts[-2:])
    return parts[-1] if parts and not parts[-1].startswith("~") else "."


def public_value(value: Any) -> Any:
    """The same for every text in a value of the types that JSON has, but for what is told to a model."""
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, Mapping):
        return {name: item if name in _SAID else public_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [public_value(item) for item in value]
    return value


def public_command(arguments: Sequence[str]) -> str:
    """A command line that can be pasted into a shell, its paths as by `public_text`."""
    shown = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        is_option = equals and re.fullmatch(r"--[\w.-]+", name)
        shown.append(name + equals + public_text(value) if is_option else public_text(argument))
    return shlex.join(shown)
