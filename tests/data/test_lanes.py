"""The order of a stream: the same on any number of processes, after any interruption, and with every document once."""

import csv
import gzip
import json
import logging
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.packaged_modules.parquet.parquet import Parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from hfgpt.data import BlockStream, load_text, pieces, readers, split_documents, stream_blocks
from hfgpt.data.stories import generate_stories
from hfgpt.errors import UserError

END = 256


def encode_bytes(texts: list[str]) -> list[list[int]]:
    return [list(text.encode("utf-8")) for text in texts]


def documents_of(shards: list[list[str]]) -> datasets.IterableDataset:
    """A stream of texts in shards, as `load_text` gives it for the pieces of a file."""

    def rows(shards):
        for shard in shards:
            yield from ({"text": text} for text in shard)

    return datasets.IterableDataset.from_generator(rows, gen_kwargs={"shards": shards})


def numbered(num_documents: int, num_shards: int, length: int = 20) -> list[list[str]]:
    texts = [f"{number:06d}" + "." * (number * 7 % length) for number in range(num_documents)]
    return [texts[shard::num_shards] for shard in range(num_shards)]


def stream(documents, *, block_size=8, num_lanes=4, shuffle_buffer_size=3, end=END) -> BlockStream:
    if isinstance(documents, list):
        documents = documents_of(documents)
    return BlockStream(
        documents,
        encode_bytes,
        end_of_text_id=end,
        block_size=block_size,
        num_lanes=num_lanes,
        shuffle_buffer_size=shuffle_buffer_size,
    )


def tokens_of(example) -> tuple[int, ...]:
    inputs, labels = example["input_ids"].tolist(), example["shift_labels"].tolist()
    assert inputs[1:] == labels[:-1]
    return (*inputs, labels[-1])


class Processes:
    """All processes of a run, one after the other; their examples together in the order of the run."""

    def __init__(self, stream: BlockStream, num_ranks: int = 1, *, seed: int = 5, state=None) -> None:
        self.readers = [
            stream.reader(seed=seed, rank=rank, num_ranks=num_ranks, state=state) for rank in range(num_ranks)
        ]
        self.position = 0 if state is None else state["position"]

    def take(self, num_samples: int) -> list[tuple[int, ...]]:
        parts = [iter(reader.take(num_samples)) for reader in self.readers]
        samples = range(self.position, self.position + num_samples)
        self.position += num_samples
        taken = [tokens_of(next(parts[sample % len(parts)])) for sample in samples]
        assert all(next(part, None) is None for part in parts)
        return taken

    def state(self):
        """What a checkpoint would hold."""
        states = [json.loads(json.dumps(reader.state_dict())) for reader in self.readers]
        return json.loads(json.dumps(self.readers[0].merge(states)))


# Order ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_lanes", [1, 4, 6, 7])
@pytest.mark.parametrize("num_ranks", [2, 3, 4, 8])
def test_the_order_is_the_same_on_any_number_of_processes(num_ranks, num_lanes):
    shards = numbered(120, 7)
    expected = Processes(stream(shards, num_lanes=num_lanes)).take(400)
    run = Processes(stream(shards, num_lanes=num_lanes), num_ranks)
    taken = [sample for size in (1, 7, 24, 368) for sample in run.take(size)]
    assert taken == expected


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_run_goes_on_from_any_cut_with_any_number_of_processes(data):
    lengths = data.draw(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=40), min_size=1, max_size=6))
    shards = [[f"{n}:{i}" + "x" * n for i, n in enumerate(shard)] for shard in lengths]
    block_size = data.draw(st.integers(1, 3 * min(map(len, lengths))))
    sizes = {"block_size": block_size, "shuffle_buffer_size": data.draw(st.integers(1, 9))}
    sizes["num_lanes"] = data.draw(st.integers(1, 8))
    straight = Processes(stream(shards, **sizes))
    expected = straight.take(150)
    cuts = sorted(data.draw(st.lists(st.integers(0, 150), min_size=1, max_size=4)))
    run, taken = Processes(stream(shards, **sizes), data.draw(st.integers(1, 9))), []
    for start, stop in pairwise([0, *cuts, 150]):
        taken += run.take(stop - start)
        run = Processes(stream(shards, **sizes), data.draw(st.integers(1, 9)), state=run.state())
    assert taken == expected
    assert run.state() == straight.state()


def test_a_state_is_a_function_of_the_place_and_not_of_the_way_there():
    shards = numbered(200, 6)
    straight = Processes(stream(shards))
    straight.take(333)
    run = Processes(stream(shards), 3)
    for size in (100, 133, 100):
        run.take(size)
        run = Processes(stream(shards), 5, state=run.state())
    assert run.state() == straight.state()


def test_seed_lane_epoch_and_buffer_each_change_the_order():
    lane = [f"{number:07d}" for number in range(24)]  # 23 blocks of 8 tokens, each of another text
    place = {tokens_of(block): index for index, block in enumerate(blocks_of(documents_of([lane]), 8))}

    def orders(seed: int) -> list[list[int]]:
        """The order of each lane in two epochs; both lanes hold the same text, so that only the order can differ."""
        taken = Processes(stream([lane, lane], num_lanes=2, shuffle_buffer_size=8), seed=seed).take(4 * 23)
        return [[place[sample] for sample in taken[lane::2]] for lane in (0, 1)]

    def buffers(order: list[int], bounds: list[int]) -> list[list[int]]:
        return [[index - start for index in order[start:stop]] for start, stop in pairwise(bounds)]

    (lane_0, lane_1), (other_seed, _) = orders(1), orders(2)
    for order, bounds in ((lane_0, [0, 4, 12, 20, 23]), (lane_1, [0, 8, 16, 23])):
        first, second = buffers(order[:23], bounds), buffers(order[23:], bounds)
        for epoch in (first, second):
            assert [sorted(buffer) for buffer in epoch] == [list(range(len(buffer))) for buffer in epoch]
        assert first != second
        whole = [buffer for buffer in first if len(buffer) == 8]
        assert whole[0] != whole[1]
    assert buffers(lane_0[:23], [4, 12]) != buffers(lane_1[:23], [8, 16]), "the second buffer of each lane"
    assert lane_0 != other_seed


def test_a_buffer_of_one_block_keeps_the_order_of_the_documents():
    shards = numbered(30, 1)
    expected = [tokens_of(block) for block in blocks_of(documents_of(shards), 8)]
    assert Processes(stream(shards, num_lanes=1, shuffle_buffer_size=1)).take(len(expected)) == expected


def blocks_of(documents, block_size, end=END):
    return list(stream_blocks(documents, encode_bytes, end_of_text_id=end, block_size=block_size))


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(0, 25), min_size=3, max_size=30), min_size=1, max_size=6),
    block_size=st.integers(1, 9),
    buffer_size=st.integers(1, 12),
    num_lanes=st.integers(1, 6),
    end=st.sampled_from([None, END]),
)
def test_an_epoch_of_a_lane_holds_each_block_of_its_documents_once(lengths, block_size, buffer_size, num_lanes, end):
    shards = [[f"{s}.{i}" + "y" * n for i, n in enumerate(shard)] for s, shard in enumerate(lengths)]
    documents = documents_of(shards)
    lanes = min(num_lanes, len(shards))
    by_brute_force = []
    for lane in range(lanes):
        share = documents.shard(num_shards=lanes, index=lane)
        by_brute_force.append(sorted(tokens_of(block) for block in blocks_of(share, block_size, end)))
    sizes = {"block_size": block_size, "shuffle_buffer_size": buffer_size, "num_lanes": num_lanes, "end": end}
    if not all(by_brute_force):
        with pytest.raises(UserError, match="does not fill one block"):
            Processes(stream(shards, **sizes)).take(lanes)
        return
    longest = max(map(len, by_brute_force))
    taken = Processes(stream(shards, **sizes)).take(2 * longest * lanes)
    for lane, expected in enumerate(by_brute_force):
        given_out = taken[lane::lanes]
        epochs = [given_out[start : start + len(expected)] for start in range(0, len(given_out), len(expected))]
        assert all(sorted(epoch) == expected for epoch in epochs if len(epoch) == len(expected))


def test_all_lanes_together_hold_every_document_once():
    shards = numbered(100, 10)
    documents = documents_of(shards)
    parts = [[row["text"] for row in documents.shard(num_shards=4, index=lane)] for lane in range(4)]
    assert [text for part in parts for text in part] == [text for shard in shards for text in shard]


# Each process reads its own share -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_lanes", "num_ranks", "expected"), [(8, 4, [2] * 4), (8, 16, [1] * 16), (6, 4, [3] * 4), (5, 3, [5] * 3)]
)
def test_a_process_reads_only_the_lanes_that_hold_its_examples(num_lanes, num_ranks, expected):
    parts = stream(numbered(100, 8), num_lanes=num_lanes)
    states = [parts.reader(seed=0, rank=rank, num_ranks=num_ranks).state_dict() for rank in range(num_ranks)]
    assert [len(state["lanes"]) for state in states] == expected
    assert {lane for state in states for lane in state["lanes"]} == set(map(str, range(num_lanes)))


def test_there_are_no_more_lanes_than_shards():
    assert stream(numbered(100, 3), num_lanes=64).num_lanes == 3


def test_the_first_buffers_are_of_different_length_so_that_they_do_not_all_end_at_once():
    encoded = []

    def counting(texts):
        encoded.append(len(texts))
        return encode_bytes(texts)

    shards = [[f"{n:03d}" * 5 for n in range(2000)] for _ in range(8)]
    parts = BlockStream(
        documents_of(shards), counting, end_of_text_id=END, block_size=15, num_lanes=8, shuffle_buffer_size=64
    )
    reader = parts.reader(seed=0, rank=0, num_ranks=1)
    reader.take(8)
    steps_that_read = 0
    for _ in range(64):
        encoded.clear()
        reader.take(8)
        steps_that_read += bool(encoded)
    assert steps_that_read >= 8


# Real sources ---------------------------------------------------------------------------------------------------------


def write(path: Path, texts: list[str]) -> Path:
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=25)
        return path
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        if kind in ("csv", "tsv"):
            csv.writer(file, delimiter="\t" if kind == "tsv" else ",").writerows(
                [["text"], *([text] for text in texts)]
            )
        elif kind == "json":
            json.dump([{"text": text} for text in texts], file)
        elif kind == "txt":
            file.write("\n".join(texts))
        else:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return path


@pytest.fixture
def small_pieces(monkeypatch):
    """Cut as much larger files are cut."""
    monkeypatch.setattr(pieces, "MINIMUM_BYTES_PER_PIECE", 64)
    monkeypatch.setattr(pieces, "BYTES_PER_PIECE", 200)


TEXTS = [f"document {n} naïve 漢字 🙂 " + "and so on " * (n * 13 % 17) for n in range(600)]
KINDS = ["jsonl", "parquet", "json", "csv", "tsv", "txt", "jsonl.gz", "csv.gz", "txt.gz"]


def make_source(tmp_path: Path, kind: str) -> str:
    if kind == "builtin":
        return "builtin:stories"
    if kind == "folder":
        folder = tmp_path / "folder"
        folder.mkdir()
        for number, (start, suffix) in enumerate(zip(range(0, 600, 75), [*KINDS[:6], "jsonl", "parquet"], strict=True)):
            write(folder / f"{number}.{suffix}", TEXTS[start : start + 75])
        (folder / "empty.jsonl").touch()
        return str(folder)
    if kind.startswith("txt"):
        folder = tmp_path / "books"
        folder.mkdir()
        for number in range(60):
            write(folder / f"{number}.{kind}", TEXTS[number * 10 : number * 10 + 10])
        return str(folder)
    return str(write(tmp_path / f"corpus.{kind}", TEXTS))


@pytest.mark.parametrize("kind", [*KINDS, "folder", "builtin"])
def test_a_source_of_any_kind_is_read_whole_and_goes_on_where_it_was(tmp_path, small_pieces, kind):
    documents = load_text(make_source(tmp_path, kind), streaming=True)
    train = split_documents(documents, validation_fraction=0.2, seed=3).train
    parts = stream(train, num_lanes=8, block_size=100, shuffle_buffer_size=5)
    lanes = [train.shard(num_shards=parts.num_lanes, index=lane) for lane in range(parts.num_lanes)]
    per_lane = [sorted(tokens_of(block) for block in blocks_of(lane, 100)) for lane in lanes]
    num_samples = 2 * parts.num_lanes * max(map(len, per_lane))
    num_samples = min(num_samples, 4000)
    expected = Processes(parts).take(num_samples)
    for lane, blocks in enumerate(per_lane):
        epoch = expected[lane :: parts.num_lanes][: len(blocks)]
        assert sorted(epoch) == blocks or len(epoch) < len(blocks)
    run = Processes(parts, 2)
    cut = num_samples * 3 // 5
    taken = run.take(cut)
    taken += Processes(parts, 4, state=run.state()).take(num_samples - cut)
    assert taken == expected


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder", "txt"])
def test_sources_that_can_be_read_in_parts_are_cut_into_many_pieces(tmp_path, small_pieces, kind):
    source = make_source(tmp_path, kind)
    documents = load_text(source, streaming=True)
    assert documents.num_shards >= {"parquet": 24}.get(kind, 50)
    shards = [documents.shard(num_shards=documents.num_shards, index=index) for index in range(documents.num_shards)]
    in_pieces = [row["text"] for shard in shards for row in shard]
    assert in_pieces == [row["text"] for row in load_text(source)]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 400), min_size=1, max_size=60), num_files=st.integers(1, 5), last_end=st.booleans()
)
def test_lines_are_cut_into_pieces_without_loss_wherever_the_cuts_fall(tmp_path_factory, lengths, num_files, last_end):
    folder = tmp_path_factory.mktemp("cut")
    lines = [json.dumps({"text": f"é{number}" + "z" * length}) for number, length in enumerate(lengths)]
    for number in range(num_files):
        mine = lines[number::num_files]
        (folder / f"{number}.jsonl").write_text("\n".join(mine) + ("\n" if last_end and mine else ""), encoding="utf-8")
    whole = [readers.Segment(str(path), "text") for path in sorted(folder.iterdir())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "MINIMUM_BYTES_PER_PIECE", 20)
        cut = pieces.cut_files(whole)
    in_pieces = [row for piece in cut for row in readers.read_documents(piece)]
    assert in_pieces == list(readers.read_documents(whole))
    assert len(in_pieces) == len(lines)


def test_pieces_are_even_and_as_many_as_lanes_divide():
    assert len(pieces.cut_range(2500, 64)) == 64
    sizes = {stop - start for start, stop in pieces.cut_range(2500, 64)}
    assert max(sizes) - min(sizes) <= 1
    assert pieces.cut_range(3, 64) == [(0, 1), (1, 2), (2, 3)]
    megabyte = 2**20
    for num_bytes in (megabyte, 5 * megabyte, 100 * megabyte, 1000 * megabyte, 10**12):
        assert pieces._num_pieces(num_bytes) % 64 == 0
        assert 64 <= pieces._num_pieces(num_bytes) <= 4096
    assert pieces._num_pieces(10) == 1


def test_a_broken_record_in_the_middle_of_a_file_is_named_by_its_line(tmp_path, small_pieces):
    path = tmp_path / "broken.jsonl"
    lines = [json.dumps({"text": text}) for text in TEXTS]
    lines[432] = '{"text": 7}'
    path.write_text("\n".join(lines))
    documents = load_text(str(path), streaming=True)
    with pytest.raises(UserError, match=r"broken\.jsonl does not hold a string at line 433 but 7"):
        list(documents)
    lines[432] = '{"text": "no end'
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"line 433 of .*broken\.jsonl is not valid JSON"):
        list(load_text(str(path), streaming=True))


def test_what_is_wrong_with_documents_is_said_once_for_all_lanes(tmp_path, small_pieces, caplog):
    path = tmp_path / "holes.jsonl"
    path.write_text("".join(f'{{"text": "cut \\ud83d off {n}"}}\n{{"text": ""}}\n' for n in range(400)))
    with caplog.at_level(logging.WARNING):
        Processes(stream(load_text(str(path), streaming=True), num_lanes=8)).take(2000)
    assert sum("lone surrogates" in record.message for record in caplog.records) == 1
    assert sum("documents without text are dropped" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(("kind", "said"), [("csv", 1), ("jsonl.gz", 1), ("json", 1), ("jsonl", 0), ("parquet", 0)])
def test_it_is_said_which_files_can_only_be_read_from_the_start(tmp_path, caplog, kind, said):
    path = make_source(tmp_path, kind)
    with caplog.at_level(logging.WARNING):
        load_text(path, streaming=True)
    assert sum("can only be read from the start" in record.message for record in caplog.records) == said


# Going on does not read what was read ---------------------------------------------------------------------------------


class ByteCounter:
    """Bytes of lines that were read from local files."""

    def __init__(self) -> None:
        self.count = 0

    def taken(self) -> int:
        count, self.count = self.count, 0
        return count


@pytest.fixture
def bytes_read(monkeypatch) -> ByteCounter:
    counter, open_bytes = ByteCounter(), readers.open_bytes

    @contextmanager
    def counted(path):
        with open_bytes(path) as file:

            class File:
                seek = file.seek

                def readline(self) -> bytes:
                    line = file.readline()
                    counter.count += len(line)
                    return line

            yield File()

    monkeypatch.setattr(readers, "open_bytes", counted)
    return counter


def test_a_resumed_jsonl_stream_reads_on_where_it_was(tmp_path, bytes_read):
    path = write(tmp_path / "corpus.jsonl", TEXTS * 30)
    size = path.stat().st_size
    parts = stream(load_text(str(path), streaming=True), num_lanes=2, shuffle_buffer_size=4, block_size=512)
    num_blocks = len(blocks_of(parts.documents, 512))
    bytes_read.taken()
    run = Processes(parts)
    run.take(num_blocks * 9 // 10)
    assert bytes_read.taken() == pytest.approx(0.9 * size, rel=0.05)
    resumed = Processes(parts, state=run.state())
    taken = resumed.take(20)
    # Of each lane: the piece in which its buffer begins, and documents for a buffer, batches at a time.
    assert bytes_read.taken() < 0.05 * size
    assert taken == run.take(20)


@pytest.mark.parametrize(("num_ranks", "share"), [(2, 1 / 2), (4, 1 / 4), (3, 1)])
def test_each_process_reads_its_share_of_a_file(tmp_path, bytes_read, num_ranks, share):
    path = write(tmp_path / "corpus.jsonl", TEXTS * 30)
    parts = stream(load_text(str(path), streaming=True), num_lanes=4, block_size=512)
    num_blocks = len(blocks_of(parts.documents, 512))
    for rank in range(num_ranks):
        bytes_read.taken()
        parts.reader(seed=0, rank=rank, num_ranks=num_ranks).take(num_blocks * 95 // 100)
        assert bytes_read.taken() == pytest.approx(share * path.stat().st_size, rel=0.1)


@pytest.fixture
def parquet_folder(tmp_path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(4):
        table = pa.table({"text": [f"{number} {text}" for text in TEXTS * 3], "id": list(range(3 * len(TEXTS)))})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=20)
    return folder


@pytest.fixture
def hub(parquet_folder, monkeypatch):
    """A Hub data set of parquet files, as `datasets` streams it."""
    load_dataset = datasets.load_dataset

    def from_folder(source, *, split, streaming, **options):
        return load_dataset("parquet", data_dir=str(parquet_folder), split=split, streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)


def test_a_hub_data_set_of_parquet_files_is_cut_between_row_groups_and_goes_on_there(hub, monkeypatch):
    num_rows = 0
    generate_tables = Parquet._generate_tables

    def counted(self, *args, **kwargs):
        nonlocal num_rows
        for key, table in generate_tables(self, *args, **kwargs):
            num_rows += len(table)
            yield key, table

    monkeypatch.setattr(Parquet, "_generate_tables", counted)
    documents = load_text("somebody/corpus", streaming=True)
    assert documents.num_shards == 4 * 90
    train = split_documents(documents, validation_fraction=0.1, seed=0).train
    parts = stream(train, num_lanes=4, block_size=64, shuffle_buffer_size=4)
    run = Processes(parts, 2)
    run.take(6600)
    read_straight, state, num_rows = num_rows, run.state(), 0
    assert read_straight > 4000
    resumed = Processes(parts, 4, state=state)
    taken = resumed.take(20)
    assert num_rows <= 4 * 150, "no more than the row groups around the place of each lane"
    assert taken == run.take(20)


def test_the_lanes_of_a_hub_data_set_hold_all_its_documents(hub):
    documents = load_text("somebody/corpus", streaming=True)
    expected = sorted(f"{number} {text}" for number in range(4) for text in TEXTS * 3)
    lanes = [documents.shard(num_shards=5, index=lane) for lane in range(5)]
    assert sorted(row["text"] for lane in lanes for row in lane) == expected


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [["short"], [""], []])
def test_a_stream_or_lane_that_fills_no_block_is_an_error_and_no_endless_loop(texts):
    with pytest.raises(UserError, match=r"lane 0 \(of 1\).* does not fill one block of 100 tokens: give more text"):
        Processes(stream([texts], block_size=100)).take(1)
    with pytest.raises(UserError, match=r"lane 1 \(of 2\).*fewer lanes"):
        Processes(stream([["a long text " * 20], texts], block_size=100)).take(2)


def test_states_of_another_stream_are_refused():
    shards = numbered(100, 6)
    state = Processes(stream(shards)).state()
    for changed, message in [
        (stream(shards, block_size=9), "block_size 8, and it is 9 now"),
        (stream(shards, num_lanes=3), "num_lanes 4, and it is 3 now"),
        (stream(shards, shuffle_buffer_size=2), "shuffle_buffer_size 3, and it is 2 now"),
        (stream(shards, end=None), "end_of_text_id 256, and it is None now"),
        (stream(shards[:-1]), "num_shards 6, and it is 5 now"),
    ]:
        with pytest.raises(UserError, match=message):
            changed.reader(seed=5, rank=0, num_ranks=1, state=state)
    with pytest.raises(UserError, match="seed 5, and it is 6 now"):
        stream(shards).reader(seed=6, rank=0, num_ranks=1, state=state)


def test_a_source_may_be_moved_but_not_changed(tmp_path, small_pieces):
    path = write(tmp_path / "corpus.jsonl", TEXTS)
    run = Processes(stream(load_text(str(path), streaming=True)))
    run.take(100)
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / path.name)
    resumed = Processes(stream(load_text(str(moved), streaming=True)), state=run.state())
    path.symlink_to(moved)  # for the interrupted run, which goes on for comparison
    assert resumed.take(100) == run.take(100)
    with moved.open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(UserError, match="saved with files .*resume with the data"):
        Processes(stream(load_text(str(moved), streaming=True)), state=run.state())


def test_states_that_do_not_belong_together_are_refused():
    shards = numbered(100, 6)
    run = Processes(stream(shards), 2)
    first = run.readers[0].state_dict()
    with pytest.raises(UserError, match="does not hold lane 1; give the merged states"):
        stream(shards).reader(seed=5, rank=0, num_ranks=1, state=first)
    run.take(8)
    with pytest.raises(UserError, match="not those of one run at one step"):
        run.readers[0].merge([first, run.readers[1].state_dict()])


def test_documents_that_became_fewer_are_noticed():
    shards = [["one document that is rather long and fills some blocks " * 3]]
    run = Processes(stream(shards, shuffle_buffer_size=1))
    run.take(15)
    with pytest.raises(UserError, match="end before the place where the run was interrupted"):
        Processes(stream([["one document"]], shuffle_buffer_size=1), state=run.state()).take(1)


def test_impossible_numbers_are_refused():
    for sizes in ({"block_size": 0}, {"num_lanes": 0}, {"shuffle_buffer_size": 0}):
        with pytest.raises(UserError, match="each must be at least 1"):
            stream(numbered(10, 2), **sizes)
    with pytest.raises(UserError, match="no rank 2 among 2 processes"):
        stream(numbered(10, 2)).reader(seed=0, rank=2, num_ranks=2)
    with pytest.raises(UserError, match="between 0 and 2"):
        stream(numbered(10, 2)).reader(seed=-1, rank=0, num_ranks=2)


def test_builtin_stories_begin_at_any_number():
    assert list(generate_stories(num_stories=5, first=7)) == list(generate_stories(num_stories=12))[7:]


def test_a_program_may_end_while_a_stream_is_open(tmp_path):
    write(tmp_path / "corpus.jsonl", TEXTS * 20)
    program = """
from hfgpt.data import BlockStream, load_text
def encode(texts): return [list(text.encode()) for text in texts]
reader = BlockStream(load_text("corpus.jsonl", streaming=True), encode, end_of_text_id=256, block_size=16).reader(
    seed=0, rank=0, num_ranks=1)
reader.take(100)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
