"""What the scripts here do alike: where they compute and in which format, how time is taken, what is said before."""

import contextlib
import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import transformers
import typer
from contenders import Size
from rich.console import Console
from torch import nn

DEVICES = ["cpu", "cuda"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MIXED_PRECISION = {"fp32": "no", "bf16": "bf16"}  # the same in accelerate's words
LOGITS_DIFFER = {"cpu": 1e-4, "cuda": 1e-3}  # at most, in fp32, by the order of sums


# ----------------------------------------------------------------------------------------------------------------------
# The time, and what else is measured alike
# ----------------------------------------------------------------------------------------------------------------------


def autocast(device: str, dtype_name: str) -> torch.autocast:
    """Within it, matrix products over fp32 weights are computed in this number format."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=dtype_name == "bf16")


@contextlib.contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Takes off, at its end, what Trainer and accelerate put on a model, so that the next turn begins as the first did.

    accelerate marks a model that it has prepared, and would leave autocast out when it meets it again.
    """
    before = dict(vars(model))
    yield
    vars(model).clear()
    vars(model).update(before)


def now(device: str) -> float:
    """The time, in seconds, at which all that the device was given to do is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(run: Callable[[], Any], device: str) -> float:
    """The time that `run` takes, on the device's own clock where it has one."""
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


@torch.no_grad()
def check_same_logits(contenders: list[Any], size: Size, device: str) -> None:
    """All must compute the same logits in fp32, of unpadded texts: of padded ones a classifier may judge the padding.

    Args:
        contenders: Each with a `name`, and with `logits(ids)` on the device for ids `(batch, tokens)`.
    """
    # The last id pads. Ids are drawn on the CPU, so that they are the same on all devices.
    ids = torch.randint(size.vocabulary - 1, (3, 20), generator=torch.Generator().manual_seed(1)).to(device)
    expected = contenders[0].logits(ids)
    for contender in contenders[1:]:
        apart = float((contender.logits(ids) - expected).abs().max())
        if not apart <= LOGITS_DIFFER[device]:
            raise RuntimeError(
                f"{contender.name} computes logits that differ by {apart:.2g} from {contenders[0].name}'s"
            )


def draw_length(percentiles: Mapping[int, int], chance: random.Random) -> int:
    """A length from a distribution of which so many percent, from 0 to 100, are no longer than so much."""
    return round(float(np.interp(chance.uniform(0, 100), list(percentiles), list(percentiles.values()))))


# ----------------------------------------------------------------------------------------------------------------------
# The options, and what is said before
# ----------------------------------------------------------------------------------------------------------------------


def chosen_one(name: str, known: list[str], option: str) -> str:
    """The `name`, which must be among the `known`."""
    if name not in known:
        raise typer.BadParameter(f"{option} knows no {name!r}: choose from {', '.join(known)}")
    return name


def chosen(names: str, known: list[str], option: str) -> list[str]:
    """The comma-separated `names`, which must be among the `known`."""
    return [chosen_one(name.strip(), known, option) for name in names.split(",") if name.strip()]


def chosen_device(name: str) -> str:
    """What `--device` names; CUDA where it names none and there is one, else the CPU."""
    device = chosen_one(name or ("cuda" if torch.cuda.is_available() else "cpu"), DEVICES, "--device")
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("--device cuda: torch finds no such GPU here; give --device cpu")
    return device


def chosen_dtype(name: str, device: str) -> str:
    """What `--dtype` names; bf16 where it names none on a GPU that computes in it, else fp32."""
    reason = why_no_bf16(device)
    dtype = chosen_one(name or ("bf16" if device == "cuda" and not reason else "fp32"), list(DTYPES), "--dtype")
    if dtype == "bf16" and reason:
        raise typer.BadParameter(f"--dtype bf16: {reason}; give --dtype fp32")
    return dtype


def refuse_several_gpus(device: str) -> None:
    """transformers' Trainer would spread its batches over all GPUs that it sees, and the others would not."""
    if device == "cuda" and torch.cuda.device_count() > 1:
        raise typer.BadParameter(
            f"--device cuda: torch sees {torch.cuda.device_count()} GPUs, of which one is to compute: "
            "set CUDA_VISIBLE_DEVICES=0"
        )


def why_no_bf16(device: str) -> str | None:
    """The reason for leaving bf16 out, or None where the hardware computes in it."""
    if device == "cuda":
        return None if torch.cuda.is_bf16_supported(including_emulation=False) else "the GPU computes no bf16"
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return None
    return "the CPU reports neither AVX512-BF16 nor AMX, so that bf16 would be emulated"


def environment_of(device: str) -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def begin(console: Console, device: str, threads: int) -> dict[str, Any]:
    """Settles where all compute, and says and returns what the figures depend on besides the code.

    Args:
        threads: of the CPU; 0 for torch's own choice.
    """
    if threads:
        torch.set_num_threads(threads)
    # What accelerate chooses by, for the engine as for Trainer, where the machine has a GPU.
    os.environ["ACCELERATE_USE_CPU"] = "true" if device == "cpu" else "false"
    environment = environment_of(device)
    console.print(", ".join(f"{name} {value}" for name, value in environment.items()))
    return environment
