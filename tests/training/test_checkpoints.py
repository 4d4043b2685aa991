"""Checkpoints are whole or absent, whatever kills the writer, fills the disk or flips a bit.

Run as a script, this file is a server that forks writers, so that many of them can be killed quickly: see `Writers`.
"""

import contextlib
import errno
import gc
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hfgpt.errors import UserError
from hfgpt.training.background import BackgroundWriter
from hfgpt.training.checkpoints import MANIFEST, CheckpointStore, verify
from hfgpt.training.run_lock import LOCK, exclusive

KILLS = 30  # of each of the two kinds of writers


def payload(number: int, size: int) -> bytes:
    """What the checkpoint that is written as the `number`-th of all holds, beside that number."""
    return random.Random(number).randbytes(size)


def fill_with(number: int, size: int) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / "number.txt").write_text(f"{number} {size}")
        (folder / "weights.bin").write_bytes(payload(number, size))
        (folder / "training_state").mkdir()
        (folder / "training_state" / "optimizer.bin").write_bytes(payload(-number - 1, size))

    return fill


def write(store: CheckpointStore, step: int, *, number: int | None = None, loss: float | None = None) -> Path:
    return store.write(step, fill_with(step if number is None else number, 3000), loss=loss)


def number_of(checkpoint: Path) -> int:
    """Which of all checkpoints this is; its contents are what was meant."""
    verify(checkpoint)
    number, size = map(int, (checkpoint / "number.txt").read_text().split())
    assert (checkpoint / "weights.bin").read_bytes() == payload(number, size)
    assert (checkpoint / "training_state" / "optimizer.bin").read_bytes() == payload(-number - 1, size)
    return number


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != LOCK)


# ----------------------------------------------------------------------------------------------------------------------
# Killed writers
# ----------------------------------------------------------------------------------------------------------------------


class Writers:
    """A process that has imported everything and forks the writers that a test kills."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def start(self, job: str, **arguments: Any) -> int:
        """Fork a process that runs the function named `job`; returns its id."""
        assert self.server.stdin is not None
        print(json.dumps({"job": job, "arguments": arguments}), file=self.server.stdin, flush=True)
        return int(self.read().removeprefix("started "))

    def read(self) -> str:
        """The next line that a writer, or the server about one, has written."""
        assert self.server.stdout is not None
        line = self.server.stdout.readline().strip()
        assert line, "the server of writers has died"
        return line

    def lines_until_it_ends(self) -> tuple[list[str], int]:
        """What the writer wrote until it ended, and how it ended: its exit status, or minus the signal."""
        lines = []
        while not (line := self.read()).startswith("ended "):
            lines.append(line)
        return lines, int(line.removeprefix("ended "))


def serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        writer = os.fork()
        if writer == 0:
            say(f"started {os.getpid()}")
            globals()[request["job"]](**request["arguments"])
            os._exit(0)
        say(f"ended {os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1])}")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # at once, and whole


def write_for_ever(folder: str, seed: int, background: bool) -> None:
    """As a run does that resumes from the newest checkpoint: write on, now and then the same step once more."""
    generator = random.Random(seed)
    store = CheckpointStore(Path(folder))
    with exclusive(store.folder), BackgroundWriter() as writer:
        store.clean()
        newest = store.newest()
        step, number = (0, 0) if newest is None else (int(newest.name.split("-")[1]), number_of(newest))

        def write_and_say(step: int, number: int, size: int) -> None:
            store.write(step, fill_with(number, size), loss=random.Random(number).random())
            say(f"written {number}")

        while True:
            step, number = step + generator.choice((0, 1, 1)), number + 1
            job = (step, number, generator.randrange(2_000_000))
            if background:
                writer.submit(lambda job=job: write_and_say(*job))
            else:
                write_and_say(*job)


def die_before_file_event(folder: str, event: int) -> None:
    """Put the folder in order and write step 3, but be killed right before the given event of the file system."""
    events = iter(range(event + 1))
    watched = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "shutil.rmtree"}

    def kill_at_the_event(name: str, _: Any) -> None:
        if name in watched and next(events) == event:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill_at_the_event)  # CPython calls it before each such call
    store = CheckpointStore(Path(folder), keep_last=2, keep_best=0)
    store.clean()
    write(store, 3, number=33)
    os._exit(0)


def hold_the_lock_and_fork(folder: str) -> None:
    with exclusive(Path(folder)):
        say(f"forked {fork_sleeper()}")
        time.sleep(1000)


def fork_sleeper() -> int:
    sleeper = os.fork()
    if sleeper == 0:
        time.sleep(1000)
        os._exit(0)
    return sleeper


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    writers = Writers()
    yield writers
    writers.server.communicate()
    assert writers.server.returncode == 0


@pytest.mark.parametrize("background", [False, True], ids=["in the foreground", "in the background"])
def test_kills_at_random_instants_lose_nothing(writers: Writers, tmp_path: Path, caplog, background: bool) -> None:
    generator = random.Random(20 + background)
    store = CheckpointStore(tmp_path)
    left: Counter[str] = Counter()
    acknowledged = 0
    for kill in range(KILLS):
        writer = writers.start("write_for_ever", folder=str(tmp_path), seed=kill, background=background)
        time.sleep(generator.uniform(0, 0.3))
        os.kill(writer, signal.SIGKILL)
        lines, status = writers.lines_until_it_ends()
        assert status == -signal.SIGKILL, lines
        acknowledged = max([acknowledged, *(int(line.removeprefix("written ")) for line in lines)])

        newest = store.newest()
        assert (0 if newest is None else number_of(newest)) >= acknowledged
        for step in store.steps():
            number_of(tmp_path / f"checkpoint-{step}")  # each that is there is whole
        assert not caplog.records

        left.update({name.rpartition(".")[2] for name in hidden(tmp_path)} or {"nothing"})
        store.clean()
        assert hidden(tmp_path) == []
        assert len(store.steps()) <= 4  # the two newest, the best, and one that was to go
        newest = store.newest()
        assert (0 if newest is None else number_of(newest)) >= acknowledged
        caplog.clear()
    assert acknowledged > 0
    assert left["unfinished"] > 0  # kills met it at work


def test_a_kill_at_any_file_event_loses_nothing(writers: Writers, tmp_path: Path, caplog) -> None:
    """Exhaustive where random instants are rare: between two renames, within a deletion, within the cleaning."""
    origin = tmp_path / "origin"
    store = CheckpointStore(origin, keep_last=9)
    for step in (1, 2, 3, 4, 5):
        write(store, step)
    # What a writer left that was killed between the two renames of step 3, one in rotation, one in writing.
    (origin / "checkpoint-3").rename(origin / ".checkpoint-3.replaced")
    (origin / "checkpoint-4").rename(origin / ".checkpoint-4.unfinished")
    (origin / "checkpoint-5").rename(origin / ".checkpoint-5.deleting")
    (origin / ".checkpoint-4.unfinished" / MANIFEST).unlink()
    (origin / ".checkpoint-5.deleting" / MANIFEST).unlink()

    states = set()
    for event in range(1000):
        folder = tmp_path / str(event)
        shutil.copytree(origin, folder)
        writers.start("die_before_file_event", folder=str(folder), event=event)
        _, status = writers.lines_until_it_ends()
        store = CheckpointStore(folder)
        for _ in range(2):
            newest = store.newest()
            assert newest is not None
            assert number_of(newest) in (3, 33)
            for step in store.steps():
                number_of(folder / f"checkpoint-{step}")
            states.add((*store.steps(), *hidden(folder), number_of(newest)))
            store.clean()
            assert hidden(folder) == []
        assert newest == folder / "checkpoint-3"
        survivors = store.steps()
        assert survivors in ([1, 2, 3], [2, 3])
        assert all("is damaged" not in record.message for record in caplog.records)
        shutil.rmtree(folder)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert status == 0
    assert survivors == [2, 3]
    assert event > 50  # so many instants there were
    replacing, rotating = (1, 2, ".checkpoint-3.replaced"), (2, 3, ".checkpoint-1.deleting", 33)
    assert any(state[:3] == replacing and ".checkpoint-3.unfinished" in state for state in states)
    assert rotating in states


def test_what_stands_in_a_checkpoint_is_flushed_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No power is cut here: the calls are watched."""
    flushed: list[tuple[str, bool]] = []
    flush = os.fsync

    def watch(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((path.relative_to(tmp_path).as_posix(), (tmp_path / "checkpoint-7").exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write(CheckpointStore(tmp_path), 7)
    folder = ".checkpoint-7.unfinished"
    contents = {f"{folder}/{name}" for name in ("number.txt", "weights.bin", "training_state/optimizer.bin")}
    *first, manifest, whole, parent = flushed
    assert {name for name, _ in first} == contents | {f"{folder}/training_state"}
    assert not any(named for _, named in first)
    assert (manifest, whole, parent) == ((f"{folder}/{MANIFEST}", False), (folder, False), (".", True))


# ----------------------------------------------------------------------------------------------------------------------
# Damage
# ----------------------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)


def replace_with_a_folder(path: Path) -> None:
    size = path.stat().st_size
    path.unlink()
    path.mkdir()
    assert path.stat().st_size != size


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGE = {
    "cut": (cut, "weights.bin", r"weights\.bin has 2,999 bytes instead of 3,000"),
    "emptied": (empty, "training_state/optimizer.bin", r"training_state/optimizer\.bin has 0 bytes instead of 3,000"),
    "a bit flipped": (flip_a_bit, "weights.bin", r"the contents of weights\.bin are not those that were written"),
    "missing": (Path.unlink, "weights.bin", r"weights\.bin cannot be read \(No such file or directory\)"),
    "a folder": (replace_with_a_folder, "weights.bin", r"weights\.bin has [0-9,]+ bytes instead of 3,000"),
    "no manifest": (Path.unlink, MANIFEST, r"manifest\.json cannot be read \(No such file or directory\)"),
    "half a manifest": (halve, MANIFEST, r"manifest\.json is not valid JSON"),
    "an empty manifest": (empty, MANIFEST, r"manifest\.json is not valid JSON"),
}


@pytest.mark.parametrize(("damage", "name", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_named_once_and_the_one_before_is_given(
    tmp_path: Path, caplog, damage: Callable[[Path], None], name: str, reason: str
) -> None:
    store = CheckpointStore(tmp_path)
    before, damaged = write(store, 10), write(store, 20)
    damage(damaged / name)
    assert store.newest() == before
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(damaged) in record.getMessage()
    with pytest.raises(UserError, match=reason) as caught:
        verify(damaged)
    assert str(damaged) in str(caught.value)
    assert str(caught.value).count("\n") == 0
    number_of(before)


def test_any_flipped_bit_of_a_manifest_is_seen_or_changes_nothing(tmp_path: Path) -> None:
    checkpoint = write(CheckpointStore(tmp_path), 10, loss=1.5)
    manifest = checkpoint / MANIFEST
    right = manifest.read_bytes()
    generator = random.Random(1)
    missed = 0
    for position in generator.sample(range(len(right)), 200):
        wrong = bytearray(right)
        wrong[position] ^= 1 << generator.randrange(8)
        manifest.write_bytes(wrong)
        try:
            verify(checkpoint)
        except UserError:
            continue
        missed += 1
        assert json.loads(wrong) == json.loads(right)  # white space
    assert missed < 100


def test_all_damaged_is_as_good_as_none(tmp_path: Path, caplog) -> None:
    store = CheckpointStore(tmp_path)
    assert store.newest() is None
    for step in (1, 2):
        cut(write(store, step) / "weights.bin")
    assert store.newest() is None
    assert len(caplog.records) == 2


def test_a_manifest_of_another_format_is_refused_by_its_number(tmp_path: Path) -> None:
    from hfgpt.training.checkpoints import _manifest_digest

    checkpoint = write(CheckpointStore(tmp_path), 10)
    manifest = json.loads((checkpoint / MANIFEST).read_text()) | {"format_version": 2}
    del manifest["sha256"]
    (checkpoint / MANIFEST).write_text(json.dumps(manifest | {"sha256": _manifest_digest(manifest)}))
    with pytest.raises(UserError, match="manifest.json has format_version 2, not 1"):
        verify(checkpoint)


def test_files_that_others_add_to_a_checkpoint_do_not_matter(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    checkpoint = write(store, 10)
    (checkpoint / "README.md").write_text("mine")
    assert store.newest() == checkpoint


def test_a_folder_without_a_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="manifest.json cannot be read"):
        verify(tmp_path / "checkpoint-1")


def test_a_manifest_has_the_size_and_the_hash_of_every_file(tmp_path: Path) -> None:
    checkpoint = write(CheckpointStore(tmp_path), 10, loss=1.5)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    assert (manifest["format_version"], manifest["step"], manifest["loss"]) == (1, 10, 1.5)
    names = ["number.txt", "training_state/optimizer.bin", "weights.bin"]
    assert sorted(manifest["files"]) == names
    listed = "".join(f"{record['sha256']}  {name}\n" for name, record in manifest["files"].items())
    subprocess.run(["sha256sum", "--check", "--quiet", "-"], input=listed.encode(), cwd=checkpoint, check=True)
    assert {name: (checkpoint / name).stat().st_size for name in names} == {
        name: manifest["files"][name]["size"] for name in names
    }


# ----------------------------------------------------------------------------------------------------------------------
# Full disks and other failures
# ----------------------------------------------------------------------------------------------------------------------

BIG = {"weights": torch.zeros(2_000_000)}  # 8 MB


def write_with_python(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(bytes(8_000_000))


def write_with_torch(folder: Path) -> None:
    torch.save(BIG, folder / "optimizer.pt")


def write_with_torch_to_a_file(folder: Path) -> None:
    with (folder / "optimizer.pt").open("wb") as file:
        torch.save(BIG, file)


def write_with_safetensors(folder: Path) -> None:
    save_file(BIG, folder / "model.safetensors")


WRITES = [write_with_python, write_with_torch_to_a_file, write_with_safetensors]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here, as root alone may: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def check_that_it_is_refused(store: CheckpointStore, fill: Callable[[Path], None], reason: str) -> None:
    before = write(store, 10)
    size = sum(path.stat().st_size for path in before.rglob("*.bin")) + 7
    with pytest.raises(UserError) as caught:
        store.write(20, fill)
    sentence = str(caught.value)
    assert f"checkpoint of step 20 cannot be written to {store.folder}: {reason}" in sentence
    assert f"where checkpoint-10 takes {size / 1e6:.1f} MB" in sentence
    assert "\n" not in sentence
    assert store.steps() == [10]
    assert hidden(store.folder) == []
    assert store.newest() == before
    assert number_of(before) == 10


@pytest.mark.parametrize("fill", [*WRITES, write_with_torch])
def test_a_full_disk_is_one_sentence_and_the_old_checkpoint_stays(small_disk: Path, fill) -> None:
    store = CheckpointStore(small_disk)
    check_that_it_is_refused(store, fill, os.strerror(errno.ENOSPC))
    gc.collect()  # torch.save with a path leaves its file open as long as its error is remembered
    assert number_of(write(store, 20)) == 20  # what fits can be written afterwards


@pytest.mark.parametrize("fill", WRITES)
def test_a_limit_on_file_sizes_is_one_sentence_and_the_old_checkpoint_stays(tmp_path: Path, fill) -> None:
    with files_of_at_most(1_000_000):
        check_that_it_is_refused(CheckpointStore(tmp_path), fill, os.strerror(errno.EFBIG))


def test_a_disk_that_is_full_when_the_manifest_comes_is_one_sentence(small_disk: Path) -> None:
    def fill(folder: Path) -> None:
        with (folder / "weights.bin").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    store = CheckpointStore(small_disk)
    check_that_it_is_refused(store, fill, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), KeyboardInterrupt(), OSError(errno.EIO, "no luck")])
def test_another_failure_is_passed_on_and_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    store = CheckpointStore(tmp_path)
    write(store, 20)
    with pytest.raises(type(error)) as caught:
        store.write(20, fill)
    assert caught.value is error
    assert hidden(tmp_path) == []
    assert number_of(tmp_path / "checkpoint-20") == 20


def test_a_folder_that_cannot_be_deleted_does_not_end_the_run(small_disk: Path, caplog) -> None:
    store = CheckpointStore(small_disk, keep_last=1)
    busy = write(store, 10) / "busy"
    busy.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", busy], check=True)
    checkpoint = write(store, 20)
    assert store.newest() == checkpoint
    assert store.steps() == [20]
    (record,) = caplog.records
    assert ".checkpoint-10.deleting cannot be deleted (Device or resource busy)" in record.getMessage()
    subprocess.run(["umount", small_disk / ".checkpoint-10.deleting" / "busy"], check=True)
    store.clean()
    assert hidden(small_disk) == []


def test_an_interrupt_is_passed_on_even_where_the_disk_was_full(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise KeyboardInterrupt from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(KeyboardInterrupt):
        CheckpointStore(tmp_path).write(1, fill)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_is_the_store_s_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="manifest.json is written by the store"):
        CheckpointStore(tmp_path).write(1, lambda folder: (folder / MANIFEST).touch())
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------------------
# Rotation and replacement
# ----------------------------------------------------------------------------------------------------------------------


def test_the_newest_stay_by_number_not_by_name(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2)
    for step in (8, 9, 10, 100):
        write(store, step)
    assert store.steps() == [10, 100]


def test_the_best_stay_beside_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1, keep_best=2)
    kept = []
    for step, loss in enumerate([3.0, 1.0, 2.0, float("nan"), 4.0, None, 0.5, 6.0]):
        write(store, step, loss=loss)
        kept.append(store.steps())
    assert kept == [[0], [0, 1], [1, 2], [1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 6], [1, 6, 7]]


def test_a_run_without_losses_keeps_the_newest_alone(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1, keep_best=3)
    for step in (1, 2, 3):
        write(store, step)
    assert store.steps() == [3]


def test_rotation_waits_until_the_new_one_is_whole(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1)
    write(store, 1)
    with pytest.raises(RuntimeError):
        store.write(2, lambda folder: (_ for _ in ()).throw(RuntimeError))
    assert store.steps() == [1]


def test_a_damaged_checkpoint_pushes_no_whole_one_out(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2)
    write(store, 1)
    cut(write(store, 2, loss=0.1) / "weights.bin")
    write(store, 3)
    assert store.steps() == [1, 2, 3]
    write(store, 4)
    assert store.steps() == [2, 3, 4]


def test_later_checkpoints_of_another_run_push_out_nothing_of_this_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3, keep_best=1)
    for step in (10, 20, 30):
        write(store, step, loss=0.1)
    resumed = CheckpointStore(tmp_path, keep_last=1, keep_best=1)
    write(resumed, 15, loss=5.0)
    assert resumed.steps() == [10, 15, 20, 30]


def test_what_others_left_in_the_folder_is_not_touched(tmp_path: Path) -> None:
    strangers = ["checkpoint-1", "checkpoint-01", "checkpoint-x", ".checkpoint-1", "final", ".checkpoint-1.old"]
    for name in strangers:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("theirs")
    store = CheckpointStore(tmp_path, keep_last=1)
    for step in (2, 3):
        write(store, step)
    assert store.clean() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*strangers, "checkpoint-3"])


@pytest.mark.parametrize("damage", [None, cut])
def test_a_step_that_is_reached_again_replaces_its_checkpoint(tmp_path: Path, damage) -> None:
    store = CheckpointStore(tmp_path)
    write(store, 5)
    checkpoint = write(store, 6, loss=1.0)
    if damage:
        damage(checkpoint / "weights.bin")
    assert write(store, 6, number=66, loss=2.0) == checkpoint
    assert number_of(checkpoint) == 66
    assert store.steps() == [5, 6]
    assert hidden(tmp_path) == []


def test_between_the_two_renames_of_a_replacement_the_old_one_is_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    write(store, 5)
    replaced = write(store, 6).rename(tmp_path / ".checkpoint-6.replaced")
    assert store.newest() == replaced
    assert number_of(replaced) == 6
    assert store.clean() == 0
    assert store.newest() == tmp_path / "checkpoint-6"


@pytest.mark.parametrize(("numbers", "name"), [({"keep_last": 0}, "keep_last"), ({"keep_best": -1}, "keep_best")])
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, numbers: dict[str, int], name: str) -> None:
    with pytest.raises(UserError, match=name):
        CheckpointStore(tmp_path, **numbers)


def test_a_cleaned_folder_says_how_much_was_removed(tmp_path: Path, caplog) -> None:
    store = CheckpointStore(tmp_path)
    write(store, 1)
    for name in (".checkpoint-2.unfinished", ".checkpoint-0.deleting"):
        (tmp_path / name).mkdir()
    assert store.clean() == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"Removed what a killed run had left in {tmp_path}; temporary folders: 2."
    ]
    assert store.clean() == 0
    assert len(caplog.records) == 1


def test_a_second_run_is_refused_in_another_process_until_the_first_is_killed(writers: Writers, tmp_path: Path) -> None:
    """A process that the killed one had forked lives on, as workers of a data loader may, and holds nothing."""
    holder = writers.start("hold_the_lock_and_fork", folder=str(tmp_path))
    sleeper = int(writers.read().removeprefix("forked "))
    try:
        with pytest.raises(UserError, match=rf"process {holder} on "), exclusive(tmp_path):
            pass
        os.kill(holder, signal.SIGKILL)
        writers.lines_until_it_ends()
        os.kill(sleeper, 0)  # it is alive
        with exclusive(tmp_path):
            pass
    finally:
        os.kill(sleeper, signal.SIGKILL)


if __name__ == "__main__":
    serve()
