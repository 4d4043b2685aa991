"""What the first process does for all of them, so that its mistakes end them all and none waits for ever."""

import atexit
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from hfgpt.errors import ToldElsewhereError

__all__ = ["leave_group_at_exit", "main_process_first", "on_every_process", "on_main_process", "wait_for_everyone"]

ResultT = TypeVar("ResultT")


def on_main_process(accelerator: Accelerator, function: Callable[[], ResultT]) -> ResultT:
    """What `function` returns on the first process, on all of them; it must be a thing that can be pickled.

    Raises:
        Exception: What the first process raised; then the others raise a `ToldElsewhereError`.
    """
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found[0] = function()
        except Exception as error:
            broadcast_object_list([None, str(error)])
            raise
    broadcast_object_list(found)
    if found[1] is not None:
        raise ToldElsewhereError(found[1])
    return found[0]


def main_process_first(accelerator: Accelerator, function: Callable[[], ResultT]) -> ResultT:
    """What `function` returns on each process; the others call it when the first one has filled what caches there are.

    Raises:
        Exception: As `on_main_process`; else on those that raised it.
    """
    own: list[ResultT] = []
    on_main_process(accelerator, lambda: own.append(function()))
    return own[0] if own else function()


def on_every_process(accelerator: Accelerator, function: Callable[[], list[ResultT]]) -> list[ResultT]:
    """What `function` returns on each process, one list after the other, on all of them; its items can be pickled.

    Raises:
        Exception: On a process where it raised one, that; on the others a `ToldElsewhereError`, so that none waits.
    """
    own: list[ResultT] = []
    raised: Exception | None = None
    try:
        own = function()
    except Exception as error:  # noqa: BLE001  # raised again below, when the others know
        raised = error
    told = [message for message in gather_object([None if raised is None else str(raised)]) if message is not None]
    if raised is not None:
        raise raised
    if told:
        raise ToldElsewhereError(told[0])
    return list(gather_object(own))


def wait_for_everyone(accelerator: Accelerator) -> None:
    """Go on when every process is here.

    accelerate (1.15) has processes that train on the CPU meet on the GPU of their number if the machine has any; with
    fewer GPUs than processes that is an error. Gloo, asked for no device, meets on the CPU.
    """
    if accelerator.device.type == "cpu" and accelerator.num_processes > 1:
        torch.distributed.barrier()
    else:
        accelerator.wait_for_everyone()


def leave_group_at_exit() -> None:
    """Have this process leave the others when Python ends, however it ends, if gloo joined them.

    Gloo's threads that are alive when the interpreter has gone abort the process (SIGABRT), which hides its exit code.
    Other backends wait for each other when they are left, and a process that ends on an error must not.
    """
    atexit.unregister(_leave_gloo)  # once, however often it is asked for
    atexit.register(_leave_gloo)


def _leave_gloo() -> None:
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    if joined and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()
