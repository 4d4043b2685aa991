"""Writing while training goes on."""

import atexit
import concurrent.futures
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

__all__ = ["BackgroundWriter"]

logger = logging.getLogger(__name__)


class BackgroundWriter:
    """One thread that does one job at a time, while the caller goes on.

    What a job raises is raised once, in the caller's thread, by the next `submit`, `poll` or `wait`. Leaving the
    context waits for the job; and so does the interpreter at its exit, where an exception that nobody has seen is
    logged. The job must not touch what the caller changes meanwhile: give it copies.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="background-writer", initializer=_give_way)
        self._job: Future[object] | None = None
        atexit.register(self._report_at_exit)  # runs after the executor's thread was waited for

    def submit(self, job: Callable[[], object]) -> None:
        """Begin a job when the one before has ended; it is not begun if that one raised."""
        self.wait()
        self._job = self._executor.submit(job)

    def poll(self) -> bool:
        """Whether no job is running; never waits."""
        if self._job is not None and not self._job.done():
            return False
        self.wait()
        return True

    def has_failed(self) -> bool:
        """Whether the last job has ended by an exception, which the next `submit`, `poll` or `wait` will raise."""
        return self._job is not None and self._job.done() and self._job.exception() is not None

    def wait(self) -> None:
        """Wait until no job is running."""
        if self._job is None:
            return
        concurrent.futures.wait([self._job])  # apart from `result`: an interrupt here must not lose what it raises
        job, self._job = self._job, None
        job.result()

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception:
            if error is None:
                raise
            logger.exception("Writing in the background failed, too:")  # the caller's own error goes its way
        finally:
            self._executor.shutdown()
            atexit.unregister(self._report_at_exit)

    def _report_at_exit(self) -> None:
        if self._job is not None and (error := self._job.exception()) is not None:
            logger.error("Writing in the background failed while the program ended:", exc_info=error)


def _give_way() -> None:
    """Have this thread computed after the others: a step that uses every core waits for the slowest of them.

    Threads have priorities of their own on Linux only.
    """
    if sys.platform == "linux":
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + 10)
        except OSError as error:  # a sandbox that forbids it
            logger.warning("Checkpoints are written at full priority and slow training: %s.", error.strerror)
