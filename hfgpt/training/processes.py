"""What the first process does for all of them, so that its mistakes end them all and none waits for ever."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from hfgpt.errors import ToldElsewhereError, UserError

__all__ = ["main_process_first", "on_main_process"]

ResultT = TypeVar("ResultT")


def on_main_process(accelerator: Accelerator, function: Callable[[], ResultT]) -> ResultT:
    """What `function` returns on the first process, on all of them; it must be a thing that can be pickled.

    Raises:
        UserError: On every process, if the first one raised it; the others' is a `ToldElsewhereError`.
    """
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found[0] = function()
        except UserError as error:
            found[1] = error
    broadcast_object_list(found)
    if found[1] is not None:
        raise found[1] if accelerator.is_main_process else ToldElsewhereError(str(found[1]))
    return found[0]


def main_process_first(accelerator: Accelerator, function: Callable[[], ResultT]) -> ResultT:
    """What `function` returns on each process; the others call it when the first one has filled what caches there are.

    Raises:
        UserError: On every process, if the first one raised it; else on those that raised it.
    """
    own: list[ResultT] = []
    on_main_process(accelerator, lambda: own.append(function()))
    return own[0] if own else function()
