"""That a launch does what it was asked for, and not less without a word."""

import logging
import os
import socket
from datetime import timedelta

import torch
from accelerate.utils import parse_flag_from_env
from torch.distributed import TCPStore

from hfgpt.errors import UserError

__all__ = ["LONGEST_WAIT", "asked_processes", "check_num_processes", "meet_anew", "number_format", "refuse_sharding"]

logger = logging.getLogger(__name__)

# How long processes wait for each other. The first one prepares text for as long as that takes, and by default torch
# ends those that wait: after 10 minutes on GPUs (NCCL), after 30 on CPUs (gloo).
LONGEST_WAIT = timedelta(hours=2)

# Where launchers tell each process how many there are: torchrun and accelerate, Open MPI, MPICH and Intel MPI, MVAPICH.
NUM_PROCESSES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")

# What `accelerate launch` gives to its single process exactly where it was asked for several: an address to meet the
# others at, and no number of them. The number format tells it from an address that the user has exported.
STARTED_ALONE = ("ACCELERATE_MIXED_PRECISION", "MASTER_ADDR", "MASTER_PORT")

# Whether the store in which processes meet is torchrun's.
AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"

# By what accelerate asks for a distribution that shards the model.
SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


def refuse_sharding() -> None:
    """Check that the model is to be whole on each device: accelerate's FSDP is silently something else on a CPU.

    Raises:
        UserError: If it is to be sharded.
    """
    for name, what in SHARDED.items():
        if os.environ.get(name, "").lower() == "true":
            raise UserError(
                f"The launch asks for {what}, but the training engine keeps the whole model on each device: set "
                "distributed_type to MULTI_GPU, as recipes/accelerate_configs/ddp.yaml does."
            )


def meet_anew() -> None:
    """Before processes that torchrun has restarted are joined: have them meet where their predecessors never were.

    torchrun (2.13) keeps one store over its restarts. In it the new processes find the addresses of the old ones, call
    those, and fail or wait for ever. So the first of them opens another store, and tells the others in the old one.

    On several machines nothing tells old from new: each counts its own restarts. There, `--rdzv-backend c10d` with
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment has torchrun open a store for each start.
    """
    environment = os.environ
    restart = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restart == "0" or environment.get("GROUP_WORLD_SIZE") != "1" or environment.get(AGENT_STORE) != "True":
        return
    store = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
    key = f"hfgpt/port_of_restart_{restart}"
    if environment["RANK"] == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    environment["MASTER_PORT"] = store.get(key).decode()  # waits until it is there
    environment[AGENT_STORE] = "False"  # the first process opens the store


def number_format(asked: str) -> str:
    """The format of the matrix products: what the configuration asks for, else the launcher, else what the device has.

    Args:
        asked: The field `mixed_precision`. `accelerate launch` says "no" also where nobody asked it for anything.
    """
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked != "auto":
        if launched not in ("no", asked):
            logger.warning("The launch asks for mixed precision %s; the configuration's %s is taken.", launched, asked)
        return asked
    if launched != "no":
        return launched
    if parse_flag_from_env("ACCELERATE_USE_CPU"):  # whatever else the machine has
        return "no"
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "no"


def asked_processes() -> dict[str, int]:
    """How many processes the launchers say that there are, by the variable that says it."""
    return {name: int(os.environ[name]) for name in NUM_PROCESSES if os.environ.get(name, "").isdecimal()}


def check_num_processes(num_processes: int) -> None:
    """Check that as many processes train together as the launch was asked for.

    accelerate (1.15) starts one process, whatever number is asked for, where `distributed_type` is MULTI_CPU or NO. And
    where a launcher has started several, but not in the way that accelerate knows on this device, each is alone.

    Raises:
        UserError: If there are fewer.
    """
    asked = asked_processes()
    for name, number in asked.items():
        if number > num_processes:
            raise UserError(
                f"The launch is one of {number} processes ({name}), but only {num_processes} would train together: "
                f"start them with torchrun or accelerate launch, or unset {name} to train in one."
            )
    if not asked and all(name in os.environ for name in STARTED_ALONE):
        raise UserError(
            "accelerate launch was asked for several processes and has started only one, as it does for "
            "distributed_type MULTI_CPU and NO: set distributed_type to MULTI_GPU, on CPUs, too, as "
            "recipes/accelerate_configs/multi_cpu.yaml does; or set num_processes to 1."
        )
