"""The energy that a run takes, where the machine has counters of it: measured or not said, never estimated."""

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch

__all__ = ["EnergyMeter", "read_counters"]

logger = logging.getLogger(__name__)

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Adds up what the counters of this machine have counted since the last look.

    A processor's counter begins again at zero every few minutes to hours, so it must be looked at more often than that.

    Args:
        device: What the run computes on. A GPU's own counter is read; the processor's always, where that is allowed.
        joules: What was counted before this process, which is to be added to.
    """

    def __init__(self, device: torch.device, joules: Mapping[str, float] | None = None) -> None:
        self.device = device
        self.joules: dict[str, float] = dict(joules or {})
        self._last = read_counters(device)
        if device.type == "cuda" and find_spec("pynvml") is None:
            logger.warning("The energy of the GPUs is not measured without nvidia-ml-py: pip install 'hfgpt[energy]'.")

    def look(self) -> None:
        """Add what was counted since the last look."""
        now = read_counters(self.device)
        for name, (joules, wraps_at) in now.items():
            if name in self._last:
                counted = joules - self._last[name][0]
                if counted < 0:
                    counted += wraps_at
                self.joules[name] = self.joules.get(name, 0.0) + counted
        self._last = now

    @property
    def kilowatt_hours(self) -> dict[str, float]:
        """By what was measured; empty if nothing could be."""
        return {name: joules / 3.6e6 for name, joules in self.joules.items()}


def read_counters(device: torch.device, powercap: Path = POWERCAP) -> Mapping[str, tuple[float, float]]:
    """Joules counted so far, and at how many the counter begins again, by what it counts for.

    A GPU's is NVML's, for which nvidia-ml-py must be installed; a processor's is RAPL, Intel's and AMD's, which Linux
    lets only root read. Both count all that the device does, other programs' work included.
    """
    return {**_read_processors(powercap), **(_read_gpus() if device.type == "cuda" else {})}


def _read_processors(powercap: Path) -> dict[str, tuple[float, float]]:
    found = {}
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:  # a part of a package: cores, memory
            continue
        try:
            joules, wraps_at = (int((zone / name).read_text()) / 1e6 for name in ("energy_uj", "max_energy_range_uj"))
        except (OSError, ValueError):  # not this user's to read
            continue
        found[f"processor {zone.name.partition(':')[2]}"] = (joules, wraps_at)
    return found


def _read_gpus() -> dict[str, tuple[float, float]]:
    """Those that this machine's processes of the run compute on: the first so many that they see."""
    if find_spec("pynvml") is None:
        return {}
    import pynvml  # type: ignore[import-not-found]  # nvidia-ml-py, which only a machine with such a GPU needs

    found = {}
    num_gpus = min(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count())
    try:
        pynvml.nvmlInit()
        for index in range(num_gpus):
            number = index if num_gpus > 1 else torch.cuda.current_device()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(number).uuid}".encode())
            found[f"GPU {number}"] = (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, float("inf"))
    except pynvml.NVMLError:  # a part of a GPU, or one from before 2017, has no counter
        return {}
    return found
