"""Records and the spool: acknowledged is durable, and spooled is replayed exactly once."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from anyio.lowlevel import checkpoint

from agent.gateway.log.group_commit import LARGE_RECORD_CHARS, GroupCommit, QueueFull
from agent.gateway.log.recorder import Recorder
from agent.gateway.log.spool import QUARANTINE, Spool, SpoolFull, encode
from agent.gateway.metrics import Metrics
from store import interactions, namespaces
from store.db import Database
from store.records import Record, save
from tests.support.factories import NOW, make_record
from tests.support.recorded_calls import record_calls
from tests.support.until import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def shop(any_db: Database) -> Database:
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    return any_db


def recorded(db: Database) -> list[str]:
    with db.read() as session:
        return sorted(row.id for row in interactions.recent(session, "shop", 1000))


def spool_bytes(folder: Path, records: list[Record]) -> bytes:
    spool = Spool(folder)
    spool.append(records)
    [batch] = spool.batches()
    raw = batch.read_bytes()
    batch.unlink()
    return raw


def read(folder: Path, raw: bytes) -> tuple[list[str], int]:
    batch = folder / "batch.spool"
    batch.write_bytes(raw)
    records, broken = Spool(folder).read(batch)
    return [record.id for record in records], len(broken)


def test_a_record_round_trips_through_the_spool(tmp_path: Path) -> None:
    record = make_record(
        response="two\nlines é😀 \x00", messages=[{"role": "user", "content": "\n"}]
    )
    spool = Spool(tmp_path)

    spool.append([record])

    assert spool.read(spool.batches()[0]) == ([record], [])


def test_a_batch_truncated_at_any_byte_loses_only_the_truncated_records(tmp_path: Path) -> None:
    records = [make_record(), make_record()]
    raw = spool_bytes(tmp_path, records)
    first_ends = len(encode(records[0])) - 1

    for length in range(len(raw)):
        ids, _ = read(tmp_path, raw[:length])
        if length >= len(raw) - 1:
            assert len(ids) == 2
        elif length >= first_ends:
            assert ids == [records[0].id]
        else:
            assert ids == []


def test_a_flipped_byte_costs_at_most_its_own_record(tmp_path: Path) -> None:
    records = [make_record() for _ in range(3)]
    raw = spool_bytes(tmp_path, records)
    size = len(encode(records[0]))
    all_ids = [record.id for record in records]

    for place in range(len(raw)):
        flipped = bytearray(raw)
        flipped[place] ^= 0xFF
        ids, broken = read(tmp_path, bytes(flipped))
        hit = next(i for i in range(3) if place < size * (i + 1) or i == 2)
        assert set(all_ids) - set(ids) <= {all_ids[hit]}
        assert broken or ids == all_ids


def test_the_spool_counts_its_batches_and_bytes_without_reading_them(tmp_path: Path) -> None:
    size = len(encode(make_record()))
    spool = Spool(tmp_path, quota_bytes=2 * size + 9)
    for _ in range(2):
        spool.append([make_record()])
    (tmp_path / "odd.spool").mkdir()  # is no batch
    for again in (spool, Spool(tmp_path, quota_bytes=2 * size + 9)):
        assert again.count == len(again.batches()) == 2
        with pytest.raises(SpoolFull):
            again.append([make_record()])
    spool.remove(spool.batches()[0])
    spool.append([make_record()])
    assert spool.count == 2


def test_an_unfinished_batch_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-batch").write_bytes(b"half")

    assert Spool(tmp_path).batches() == []
    assert list(tmp_path.iterdir()) == []


async def test_an_acknowledged_record_is_in_the_database(shop: Database, tmp_path: Path) -> None:
    recorder = Recorder(shop, Spool(tmp_path / "spool"), Metrics())
    recorder.start()
    records = [make_record() for _ in range(40)]
    for number, record in enumerate(records[:3]):
        await recorder.record(record)
        assert len(recorded(shop)) == number + 1
    await asyncio.gather(*map(recorder.record, records[3:]))
    assert recorded(shop) == sorted(record.id for record in records)
    await recorder.close()


async def test_replay_is_exactly_once_also_after_a_crash_between_commit_and_removal(
    shop: Database, tmp_path: Path
) -> None:
    records = [make_record() for _ in range(5)]
    Spool(tmp_path / "spool").append(records)
    with shop.begin() as session:
        for record in records[:3]:
            save(session.connection(), [record])

    recorder = Recorder(shop, Spool(tmp_path / "spool"), Metrics())
    recorder.start()
    await until(lambda: not recorder.degraded)
    await recorder.close()

    assert recorded(shop) == sorted(record.id for record in records)
    assert Spool(tmp_path / "spool").batches() == []


async def test_a_corrupt_record_is_quarantined_and_counted(shop: Database, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder)
    records = [make_record() for _ in range(3)]
    spool.append(records)
    [batch] = spool.batches()
    raw = batch.read_bytes()
    batch.write_bytes(raw.replace(records[1].id.encode(), b"int_changed"))
    metrics = Metrics()

    recorder = Recorder(shop, spool, metrics)
    recorder.start()
    await until(lambda: not recorder.degraded)
    await recorder.close()

    assert recorded(shop) == sorted([records[0].id, records[2].id])
    assert b"int_changed" in (folder / QUARANTINE).read_bytes()
    assert b"byheart_quarantined_records_total 1.0" in metrics.render()


async def test_a_record_that_the_database_rejects_does_not_block_the_others(
    shop: Database, tmp_path: Path
) -> None:
    poison = make_record(namespace="nowhere")
    records = [make_record() for _ in range(6)]

    recorder = Recorder(shop, Spool(tmp_path / "spool"), Metrics())
    recorder.start()
    await asyncio.gather(*map(recorder.record, [records[0], poison, records[1]]))
    for record in records[2:]:
        await recorder.record(record)
    await until(lambda: not recorder.degraded)
    await recorder.close()

    assert recorded(shop) == sorted(record.id for record in records)
    assert poison.id.encode() in (tmp_path / "spool" / QUARANTINE).read_bytes()


async def test_a_database_that_rejects_everything_quarantines_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = record_calls(monkeypatch, Spool, "batches")
    records = [make_record() for _ in range(6)]
    folder = tmp_path / "spool"
    broken = Database(f"sqlite:///{tmp_path / 'empty.db'}")

    recorder = Recorder(broken, Spool(folder), Metrics())
    recorder.start()
    for record in records:
        await recorder.record(record)
    before = len(replays)
    await until(lambda: len(replays) >= before + 3)
    await recorder.close()
    broken.close()

    spooled = [r.id for batch in Spool(folder).batches() for r in Spool(folder).read(batch)[0]]
    assert sorted(spooled) == sorted(record.id for record in records)
    assert not (folder / QUARANTINE).exists()


async def test_group_commit_writes_few_batches_and_bounds_its_queue() -> None:
    batches: list[int] = []

    def slow(records: list[Record]) -> None:
        batches.append(len(records))
        time.sleep(0.05)

    group = GroupCommit("test", slow, capacity=50)
    group.start()
    await asyncio.gather(*(group.submit(make_record()) for _ in range(50)))
    results = await asyncio.gather(
        *(group.submit(make_record()) for _ in range(60)), return_exceptions=True
    )
    assert any(isinstance(result, QueueFull) for result in results)
    assert await asyncio.to_thread(group.close, 5)

    assert sum(batches) >= 100
    assert len(batches) < 8


async def test_a_batch_has_at_most_one_large_record() -> None:
    batches: list[list[int]] = []
    group = GroupCommit(
        "test",
        lambda batch: batches.append([len(each.messages[0]["content"]) for each in batch]),
        capacity=50,
    )
    for size in [LARGE_RECORD_CHARS] * 3 + [1, 2]:
        message = {"role": "user", "content": "x" * size}
        group.submit_nowait(make_record(messages=[message]))
    group.start()
    assert await asyncio.to_thread(group.close, 10)

    assert batches == [
        [1, 2, LARGE_RECORD_CHARS],
        [LARGE_RECORD_CHARS],
        [LARGE_RECORD_CHARS],
    ]


async def test_closing_writes_the_queued_records() -> None:
    written: list[Record] = []

    group = GroupCommit("test", written.extend, capacity=500)
    waiting = [asyncio.ensure_future(group.submit(make_record())) for _ in range(300)]
    await checkpoint()
    group.start()
    assert await asyncio.to_thread(group.close, 5)
    await asyncio.gather(*waiting)

    assert len(written) == 300


async def test_a_failing_idle_pass_does_not_stop_the_writer() -> None:
    failed, written = threading.Event(), list[Record]()

    def fail() -> None:
        failed.set()
        raise OSError("too many open files")

    group = GroupCommit("test", written.extend, capacity=5, idle=fail, tick_s=0.01)
    group.start()
    assert await asyncio.to_thread(failed.wait, 5)
    await group.submit(make_record())
    assert await asyncio.to_thread(group.close, 5)

    assert len(written) == 1
