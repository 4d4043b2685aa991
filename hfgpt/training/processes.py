"""What the first process does for all of them, so that its mistakes end them all and none waits for ever."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from hfgpt.errors import ToldElsewhereError

__all__ = ["main_process_first", "on_main_process"]

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
