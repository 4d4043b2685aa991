"""`hfgpt recipes list` and `copy`: the shipped configurations."""

import shutil
from pathlib import Path

from hfgpt.errors import UserError
from hfgpt.recipes.configuration import command_of, configs_folder


def list_all() -> None:
    """Print each configuration's name and the first line of its comment."""
    for name, path in _all().items():
        comment = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{name:24} {comment}")


def copy(name: str, destination: Path) -> None:
    """Copy a configuration.

    Raises:
        UserError: If there is none of that name, or the copy would overwrite a file.
    """
    known = _all()
    if name not in known:
        raise UserError(f"There is no recipe {name!r}; there are {', '.join(known)}.")
    target = destination / known[name].name if destination.is_dir() else destination
    if target.exists():
        raise UserError(f"{target} exists: name another file.")
    try:
        shutil.copyfile(known[name], target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}.") from error
    print(f"{target}: use it with {command_of(name.split('/')[0])} --config {target}")


def _all() -> dict[str, Path]:
    folder = configs_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("*/*.yaml"))}
