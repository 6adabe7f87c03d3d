"""Records that the database could not take, on disk until it can.

One file for each batch, written beside its place, synced and renamed into it: a file with its final
name is complete. A record is a line with its checksum, and stands between two line ends of its own,
so that one broken byte or a torn end costs that one record. What does not check out is moved to
`quarantine.log` and counted, and never stops the rest.
"""

import os
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path

import orjson

from agent.process.failpoint import reach
from store.db import new_id
from store.records import Record

SUFFIX = ".spool"
TEMPORARY_PREFIX = ".unfinished-"
QUARANTINE = "quarantine.log"
PROBE = bytes(2**16)


class SpoolFull(Exception):
    """The spool has as much as it may."""


class Spool:
    """A folder of batches, oldest first; at most `quota_bytes`, so that it fills no disk.

    How much is in it is counted, once: with the database away for hours it has many files. One
    thread appends and another removes.
    """

    def __init__(self, folder: Path, quota_bytes: int = 2**30) -> None:
        self.folder = folder
        self._quota_bytes = quota_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(f"{TEMPORARY_PREFIX}*"):
            unfinished.unlink()
        sizes = [batch.stat().st_size for batch in self.batches()]
        self.count, self._bytes = len(sizes), sum(sizes)
        self._counting = threading.Lock()

    def append(self, records: Iterable[Record]) -> None:
        """Keep a batch; on stable storage when this returns.

        Raises:
            SpoolFull: It would have more than its quota.
            OSError: The disk does not take it.
        """
        name = new_id("batch")
        temporary = self.folder / f"{TEMPORARY_PREFIX}{name}"
        data = b"".join(map(encode, records))
        if self._bytes + len(data) > self._quota_bytes:
            raise SpoolFull(
                f"{self.folder} has {self._bytes} bytes, and may have {self._quota_bytes}"
            )
        try:
            _write_synced(temporary, data)
            reach("spool written")
            temporary.rename(self.folder / f"{name}{SUFFIX}")
            self._note(1, len(data))
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(self.folder)
        reach("spooled")

    def is_writable(self) -> bool:
        """Whether the disk would take a batch now; tried."""
        temporary = self.folder / f"{TEMPORARY_PREFIX}{new_id('trial')}"
        try:
            _write_synced(temporary, PROBE)
        except OSError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def batches(self) -> list[Path]:
        """The batches there are, oldest first."""
        return sorted(path for path in self.folder.glob(f"*{SUFFIX}") if path.is_file())

    def read(self, batch: Path) -> tuple[list[Record], list[bytes]]:
        """The records of a batch, and the lines that are none."""
        records, broken = [], []
        for line in batch.read_bytes().split(b"\n"):
            record = decode(line)
            if record is not None:
                records.append(record)
            elif line:
                broken.append(line)
        return records, broken

    def quarantine(self, lines: Iterable[bytes]) -> None:
        """Put aside what cannot be replayed, for an operator to look at."""
        _write_synced(self.folder / QUARANTINE, b"".join(line + b"\n" for line in lines))

    def remove(self, batch: Path) -> None:
        """Forget a batch that has been replayed."""
        size = batch.stat().st_size
        batch.unlink()
        self._note(-1, -size)
        _sync_folder(self.folder)

    def _note(self, batches: int, size: int) -> None:
        with self._counting:
            self.count += batches
            self._bytes += size


def encode(record: Record) -> bytes:
    """A record as it stands in a batch."""
    payload = orjson.dumps(record.to_json())
    return b"\n%08x %b\n" % (zlib.crc32(payload), payload)


def decode(line: bytes) -> Record | None:
    """The record in a line; None if it does not check out."""
    checksum, _, payload = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(payload):
            return None
        return Record.from_json(orjson.loads(payload))
    except (ValueError, TypeError, KeyError):
        return None


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
