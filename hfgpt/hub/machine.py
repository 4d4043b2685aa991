"""Where and with what a run was made: hardware, versions, the commit, the command that started it; no host names."""

import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .public_text import public_command

__all__ = ["git_commit", "hardware", "launch_command", "versions"]

PACKAGES = ("hfgpt", "torch", "transformers", "accelerate", "datasets", "tokenizers", "peft")

# The programs that start a recipe by themselves; from within another program there is no command to name.
SCRIPTS = ("pretrain.py", "finetune_classification.py", "finetune_instruction.py")


def hardware(accelerator: Accelerator) -> dict[str, Any]:
    """The devices that a run computes on.

    Returns:
        `device` (its type), `accelerators` (a list of `name` and `count`; empty on a CPU), `num_processes`, `cpu`,
        `cpu_cores` (those that this process may use), `threads` (of one process), `memory_gib`, `system` and
        `mixed_precision`. What cannot be found out is None.
    """
    names: Counter[str] = Counter()
    if accelerator.device.type == "cuda":
        names[torch.cuda.get_device_name(accelerator.device)] = accelerator.num_processes
    elif accelerator.device.type != "cpu":
        names[accelerator.device.type] = accelerator.num_processes
    return {
        "device": accelerator.device.type,
        "accelerators": [{"name": name, "count": count} for name, count in names.items()],
        "num_processes": accelerator.num_processes,
        "cpu": _cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "mixed_precision": accelerator.mixed_precision,
    }


def _cpu_name() -> str | None:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip() not in ("", "unknown"):
                return value.strip()
    return platform.processor() or None


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def versions() -> dict[str, str]:
    """Of Python and of those packages that are installed and shape a training."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an optional one
            continue
    return found


def git_commit() -> dict[str, Any] | None:
    """The commit of the checkout that this code is run from, and whether files of it were changed since.

    None if the package is installed, or there is no git to ask.
    """
    git, package = shutil.which("git"), Path(__file__).parents[1]

    def ask(*question: str) -> str | None:
        # Fixed questions about our own folder, without a shell.
        answer = subprocess.run(  # noqa: S603
            [str(git), "-C", str(package), *question], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() if answer.returncode == 0 else None

    # A package in an environment within somebody else's checkout is no file of that checkout.
    if git is None or ask("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed_since": bool(ask("status", "--porcelain", "--untracked-files=no", "--", "."))}


def launch_command(num_processes: int) -> str | None:
    """The command that started this process, its paths as they may be published; None if a recipe was called by Python.

    What `accelerate launch` or `torchrun` was told stays with them: only the number of processes is known here.
    """
    program, arguments = Path(sys.argv[0]).name, list(_without_push(sys.argv[1:]))
    if program in ("hfgpt", "hfgpt.exe"):
        return public_command(["hfgpt", *arguments])
    if program not in SCRIPTS:
        return None
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        launcher = ["accelerate", "launch", "--num_processes", str(num_processes)]
    elif "LOCAL_RANK" in os.environ:
        launcher = ["torchrun", "--nproc_per_node", str(num_processes)]
    else:
        launcher = ["python"]
    return public_command([*launcher, f"recipes/{program}", *arguments])


def _without_push(arguments: Iterable[str]) -> Iterator[str]:
    """Options without those of a push: who repeats the command would push to the same repository."""
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, _ = argument.partition("=")
        if name != "--push_to_hub" and not name.startswith("--hub_"):
            yield argument
        elif not equals:
            next(remaining, None)
