"""Stand-in for a file that transformers' source distribution leaves out: processes that compute together on CPUs.

transformers' mixins ask for these names; the processes speak gloo.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

__all__ = [
    "_get_distributed_backend",
    "_get_distributed_device_type",
    "_get_rank_device",
    "_set_rank_device",
    "_start_rank_processes",
    "run_distributed",
]


def _get_distributed_device_type() -> str:
    return "cpu"


def _get_distributed_backend() -> str:
    return "gloo"


def _get_rank_device(rank: int) -> torch.device:
    return torch.device("cpu")


def _set_rank_device(rank: int) -> None:
    """Do nothing: every process computes on the CPU."""


def _start_rank_processes(function: Callable[..., None], args: tuple[Any, ...], nprocs: int) -> None:
    """Run `function(rank, *args)` in `nprocs` fresh processes; the first exception among them is raised here."""
    torch.multiprocessing.spawn(function, args=args, nprocs=nprocs)


def _in_group(
    rank: int, function: Callable[..., None], address: tuple[str, int], world_size: int, args: tuple[Any, ...]
) -> None:
    host, port = address
    os.environ |= {
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
    }
    store = torch.distributed.TCPStore(host, port, is_master=False)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        function(rank, *args)
    finally:
        torch.distributed.destroy_process_group()


def run_distributed(world_size: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a function `(rank, *args)` run in a group of `world_size` processes."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
            _start_rank_processes(_in_group, (function, ("localhost", store.port), world_size, args), world_size)

        return run

    return decorate
