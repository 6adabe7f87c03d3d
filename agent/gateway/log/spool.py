"""The spool: records on disk until the database accepts them.

Each batch is one file. It is written under a temporary name, synced and renamed, so a file with its
final name is complete. Each record is a line with a checksum, with a line end before and after it,
so a corrupt byte or a truncated file loses only that record. Corrupt lines are moved to
`quarantine.log` and counted; they never stop the replay of the others.
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
    """The spool has reached its quota."""


class Spool:
    """A folder of batches of at most `quota_bytes`, so that it cannot fill the disk.

    The number of batches and bytes is tracked in memory: after hours without a database, the folder
    has too many files to list it for every append. One thread appends and another removes.
    """

    def __init__(self, folder: Path, quota_bytes: int = 2**30) -> None:
        self.folder = folder
        self._quota_bytes = quota_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(f"{TEMPORARY_PREFIX}*"):
            unfinished.unlink()
        sizes = [batch.stat().st_size for batch in self.batches()]
        self.count, self._bytes = len(sizes), sum(sizes)
        self._count_lock = threading.Lock()

    def append(self, records: Iterable[Record]) -> None:
        """Write a batch to stable storage.

        Raises:
            SpoolFull: The batch would exceed the quota.
            OSError: The disk failed or is full.
        """
        name = new_id("batch")
        temporary = self.folder / f"{TEMPORARY_PREFIX}{name}"
        data = b"".join(map(encode, records))
        if self._bytes + len(data) > self._quota_bytes:
            raise SpoolFull(f"{self.folder} holds {self._bytes} of {self._quota_bytes} bytes")
        try:
            _write_synced(temporary, data)
            reach("spool written")
            temporary.rename(self.folder / f"{name}{SUFFIX}")
            self._count(1, len(data))
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(self.folder)
        reach("spooled")

    def is_writable(self) -> bool:
        """Return whether the disk has space for a batch, by writing a probe file."""
        temporary = self.folder / f"{TEMPORARY_PREFIX}{new_id('trial')}"
        try:
            _write_synced(temporary, PROBE)
        except OSError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def batches(self) -> list[Path]:
        """Return the batches, oldest first."""
        return sorted(path for path in self.folder.glob(f"*{SUFFIX}") if path.is_file())

    def read(self, batch: Path) -> tuple[list[Record], list[bytes]]:
        """Return the records of a batch, and its corrupt lines."""
        records, corrupt = [], []
        for line in batch.read_bytes().split(b"\n"):
            record = decode(line)
            if record is not None:
                records.append(record)
            elif line:
                corrupt.append(line)
        return records, corrupt

    def quarantine(self, lines: Iterable[bytes]) -> None:
        """Move lines that cannot be replayed to the quarantine file, for the operator."""
        _write_synced(self.folder / QUARANTINE, b"".join(line + b"\n" for line in lines))

    def remove(self, batch: Path) -> None:
        """Remove a batch that has been replayed."""
        size = batch.stat().st_size
        batch.unlink()
        self._count(-1, -size)
        _sync_folder(self.folder)

    def _count(self, batches: int, size: int) -> None:
        with self._count_lock:
            self.count += batches
            self._bytes += size


def encode(record: Record) -> bytes:
    """Encode a record as a line of a batch."""
    payload = orjson.dumps(record.to_json())
    return b"\n%08x %b\n" % (zlib.crc32(payload), payload)


def decode(line: bytes) -> Record | None:
    """Decode a line; return None if it is corrupt."""
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
