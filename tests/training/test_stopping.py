"""Real signals in the middle of things, and what is left of the handlers afterwards."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from hfgpt.training.checkpoints import CheckpointStore
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback
from hfgpt.training.stopping import STOP_SIGNALS, StopWatch, leave_signals_to_the_training_process

by_name = pytest.mark.parametrize("sent", STOP_SIGNALS, ids=lambda sent: sent.name)


class Sender(Callback):
    """Sends this process a signal in one of the events of the run."""

    def __init__(self, sent: signal.Signals, event: str, step: int) -> None:
        self.sent, self.event, self.step = sent, event, step

    def _send(self, event: str, step: int) -> None:
        if (event, step) == (self.event, self.step):
            os.kill(os.getpid(), self.sent)

    def on_step(self, run, report) -> None:
        self._send("step", report.step)

    def on_evaluation(self, run, evaluation) -> None:
        self._send("evaluation", evaluation.step)


def run(laboratory, callbacks=(), task=None, save=None, **fields):
    config = laboratory.config(**{"max_steps": 9, "eval_steps": 3, "keep_last": 9, **fields})
    model = laboratory.model()

    def save_model(folder: Path, weights) -> None:
        torch.save(weights, folder / "weights.pt")
        if save is not None:
            save(folder)

    accelerator = start_accelerator(config)
    return train(task or laboratory.task(), model, config, accelerator, callbacks, save_model=save_model)


@pytest.fixture(autouse=True)
def handlers_of_before():
    """Each test begins and ends with the same ones."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield before
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before


@by_name
@pytest.mark.parametrize(("event", "step", "ends_at"), [("step", 2, 3), ("evaluation", 0, 1), ("evaluation", 3, 4)])
def test_a_signal_stops_the_run_at_the_next_step_and_after_saving(laboratory, sent, event, step, ends_at) -> None:
    ended = run(laboratory, [Sender(sent, event, step)])
    assert ended.step == ends_at
    assert ended.stop_reason.exit_code == 128 + sent
    assert ended.stop_reason.interrupted
    newest = CheckpointStore(ended.output_dir).newest()
    assert newest == ended.output_dir / f"checkpoint-{ends_at}"
    weights = torch.load(newest / "weights.pt", weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in ended.model.state_dict().items())


@pytest.mark.parametrize("in_background", [True, False])
def test_a_signal_while_a_checkpoint_is_written_leaves_it_whole(laboratory, in_background) -> None:
    sent = threading.Event()

    def save(folder: Path) -> None:
        if "checkpoint-3" in folder.name:
            os.kill(os.getpid(), signal.SIGTERM)
            sent.set()

    class Waiting(Callback):
        """The thread that writes may get its turn late: no later checkpoint is begun before the signal is there."""

        def on_step(self, run, report) -> None:
            assert report.step <= 3 or sent.wait(60)

    ended = run(laboratory, [Waiting()], save=save, save_in_background=in_background)
    assert ended.stop_reason.exit_code == 143
    store = CheckpointStore(ended.output_dir)
    assert store.steps() == [3, ended.step]
    assert store.newest() == ended.output_dir / f"checkpoint-{ended.step}"


def test_the_last_step_is_an_end_and_no_interruption(laboratory) -> None:
    ended = run(laboratory, [Sender(signal.SIGTERM, "step", 8)])
    assert (ended.step, ended.stop_reason) == (9, None)
    assert ended.evaluations[-1].step == 9


def test_handlers_are_restored_when_training_fails(laboratory, handlers_of_before) -> None:
    class Failing(Callback):
        def on_step(self, run, report) -> None:
            assert signal.getsignal(signal.SIGTERM) != handlers_of_before[signal.SIGTERM]
            raise OSError("planned")

    with pytest.raises(OSError, match="planned"):
        run(laboratory, [Failing()])
    assert signal.getsignal(signal.SIGTERM) == handlers_of_before[signal.SIGTERM]


def test_a_thread_that_gets_no_signals_trains_to_the_end(laboratory, handlers_of_before) -> None:
    seen = []

    class Looking(Callback):
        def on_step(self, run, report) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))

    ended = []
    thread = threading.Thread(target=lambda: ended.append(run(laboratory, [Looking()])))
    thread.start()
    thread.join()
    assert ended[0].step == 9
    assert set(seen) == {handlers_of_before[signal.SIGTERM]}


def test_the_clock_of_the_run_begins_with_it() -> None:
    watch = StopWatch(TrainingConfig(output_dir="x", max_minutes=1e-9))
    watch.__enter__()
    try:
        assert watch.flags()[-1] == 1.0
    finally:
        watch.__exit__()
    assert StopWatch(TrainingConfig(output_dir="x")).flags() == [0.0] * (len(STOP_SIGNALS) + 1)


# A process that hears a signal and does not come to the end of its step.
BUSY = """
import sys, time
from hfgpt.training import stopping
from hfgpt.training.config import TrainingConfig

stopping.SAME_REQUEST_SECONDS = float(sys.argv[1])
with stopping.StopWatch(TrainingConfig(output_dir="x")) as watch:
    print("ready", flush=True)
    while watch.received is None:
        time.sleep(0.01)
    print(watch.received.name, flush=True)
    for line in sys.stdin:
        print(watch.received.name, flush=True)
"""


@pytest.fixture
def busy():
    started = []

    def start(same_request_seconds: float) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", BUSY, str(same_request_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        with process:  # closes its pipes and waits
            process.kill()


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGUSR1, signal.SIGTERM), (signal.SIGINT,) * 2]
)
def test_a_second_signal_kills_at_once(busy, first, second) -> None:
    process = busy(0)
    process.send_signal(first)
    assert process.stdout.readline() == f"{first.name}\n"
    process.send_signal(second)
    assert process.wait(timeout=60) == -second
    said = process.stderr.read()
    assert f"{first.name}: saving and stopping after this step; another signal kills" in said
    assert "Traceback" not in said


def test_the_same_request_once_more_kills_nothing(busy) -> None:
    """What a process gets from its scheduler and, passed on, from its launcher."""
    process = busy(3600)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate("still there?\n", timeout=60)
    assert (said, process.returncode) == ("SIGTERM\n", 0)
    assert complained.count("\n") == 1


class Slow(Dataset):
    """Examples that say which process prepared them."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> int:
        return os.getpid()


@by_name
def test_the_processes_that_prepare_batches_outlive_a_signal_to_the_group(sent) -> None:
    with StopWatch(TrainingConfig(output_dir="x")) as watch:
        batches = iter(
            DataLoader(Slow(), batch_size=1, num_workers=1, worker_init_fn=leave_signals_to_the_training_process)
        )
        worker = int(next(batches))
        os.kill(worker, sent)
        os.kill(os.getpid(), sent)
        assert [int(batch) for batch in batches] == [worker] * 39
        assert watch.received is sent
