"""One thread writes while another trains: nothing of what it does is lost, neither its work nor its failure."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hfgpt.errors import UserError
from hfgpt.training.background import BackgroundWriter
from hfgpt.training.checkpoints import CheckpointStore


def fail() -> None:
    raise UserError("the disk is full")


def poll_to_the_end(writer: BackgroundWriter) -> None:
    while not writer.poll():
        time.sleep(0.001)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_the_background_writer_gives_way_to_the_thread_that_trains() -> None:
    seen: list[int] = []
    with BackgroundWriter() as writer:
        writer.submit(lambda: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert seen == [min(own + 10, 19)]


def test_jobs_run_one_after_the_other_in_one_other_thread() -> None:
    running, seen = threading.Lock(), []

    def job() -> None:
        assert running.acquire(blocking=False)
        time.sleep(0.001)
        seen.append(threading.current_thread())
        running.release()

    with BackgroundWriter() as writer:
        for _ in range(20):
            writer.submit(job)
    assert len(seen) == 20
    assert set(seen) != {threading.current_thread()}
    assert len(set(seen)) == 1


@pytest.mark.parametrize("ask", ["submit", "wait", "poll"])
def test_a_failure_is_raised_once_where_the_writer_is_asked_next(ask: str) -> None:
    with BackgroundWriter() as writer:
        writer.submit(fail)
        ran = threading.Event()
        ask_in = {
            "submit": lambda: writer.submit(ran.set),
            "wait": writer.wait,
            "poll": lambda: poll_to_the_end(writer),
        }
        with pytest.raises(UserError, match="the disk is full"):
            ask_in[ask]()
        assert not ran.is_set()
        writer.wait()
        writer.submit(ran.set)
        writer.wait()
        assert ran.is_set()
        assert writer.poll()


def test_polling_does_not_wait() -> None:
    proceed = threading.Event()
    with BackgroundWriter() as writer:
        writer.submit(proceed.wait)
        assert not writer.poll()
        proceed.set()
        writer.wait()
        assert writer.poll()


def test_leaving_the_context_raises_what_failed() -> None:
    with pytest.raises(UserError, match="the disk is full"), BackgroundWriter() as writer:
        writer.submit(fail)


def test_leaving_the_context_by_an_error_passes_on_that_error_and_logs_the_other(caplog) -> None:
    with pytest.raises(KeyError, match="the caller's"), BackgroundWriter() as writer:  # noqa: PT012
        writer.submit(fail)
        raise KeyError("the caller's")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "the disk is full" in str(record.exc_info[1])


def test_an_interrupt_while_waiting_loses_no_failure() -> None:
    proceed = threading.Event()

    def job() -> None:
        proceed.wait()
        fail()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with BackgroundWriter() as writer:
            writer.submit(job)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                writer.wait()
            proceed.set()
            with pytest.raises(UserError, match="the disk is full"):
                writer.wait()
    finally:
        signal.signal(signal.SIGALRM, before)


AT_EXIT = """
import sys, time
from pathlib import Path
from hfgpt.training.background import BackgroundWriter
from hfgpt.training.checkpoints import CheckpointStore

def fill(folder):
    time.sleep(0.2)
    (folder / "weights.bin").write_bytes(bytes(1000))
    if sys.argv[2] == "fail":
        raise OSError("it went wrong")

writer = BackgroundWriter()
writer.submit(lambda: CheckpointStore(Path(sys.argv[1])).write(1, fill))
"""


@pytest.mark.parametrize("outcome", ["succeed", "fail"])
def test_the_interpreter_waits_for_the_last_job_and_tells_of_its_failure(tmp_path: Path, outcome: str) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", AT_EXIT, tmp_path / "run", outcome],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert CheckpointStore(tmp_path / "run").steps() == ([1] if outcome == "succeed" else [])
    assert ("OSError: it went wrong" in completed.stderr) == (outcome == "fail")
