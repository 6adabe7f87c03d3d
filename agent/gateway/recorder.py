"""The durable log: once `record` returns, the interaction is on stable storage.

It goes to the database in group commits. A database that fails, or is slower than `patience_s`,
costs no request more than that: the record goes to the spool instead, and later ones straight
there, until the database has taken everything back, in order, each exactly once (recording is
idempotent by id, so a record may be in both places). Only when the spool fails too does `record`
raise, and the answer is withheld: what a client has in full is never unlogged.
"""

import asyncio
import logging
import time
from pathlib import Path

from agent.admin.metrics import Metrics
from agent.gateway.group import GroupCommit
from agent.gateway.spool import Spool, encode
from store import interactions
from store.db import Database
from store.interactions import Record

logger = logging.getLogger(__name__)

CAPACITY = 4096
CLOSE_S = 15.0
REPLAY_S = 5.0
"""How long a pass over the spool goes on while batches fail."""


class Recorder:
    """Two writer threads: one for the database, one for the spool."""

    def __init__(
        self, db: Database, spool_folder: Path, metrics: Metrics, patience_s: float = 2.0
    ) -> None:
        self._db = db
        self._spool = Spool(spool_folder)
        self._metrics = metrics
        self._patience_s = patience_s
        self._spooling = False
        self._new_rows = 0
        self._failed: dict[str, int] = {}
        """How many rows were new when a batch first failed."""
        self._database = GroupCommit(
            "record-database", self._commit, capacity=CAPACITY, idle=self._replay_if_any
        )
        self._disk = GroupCommit("record-spool", self._append, capacity=CAPACITY)
        metrics.watch_queue(lambda: self._database.waiting + self._disk.waiting)
        metrics.watch_spool(lambda: len(self._spool.batches()))

    @property
    def degraded(self) -> bool:
        """Whether records go to the spool."""
        return self._spooling

    def start(self) -> None:
        """Begin to write, with what an earlier process left in the spool."""
        self._spooling = bool(self._spool.batches())
        self._database.start()
        self._disk.start()

    async def record(self, record: Record) -> None:
        """Make an interaction durable.

        Raises:
            Exception: Neither the database nor the spool could take it.
        """
        if not self._spooling and await self._in_database(record):
            return
        await self._disk.submit(record)

    async def close(self) -> None:
        """Write what is waiting and end."""
        await asyncio.to_thread(self._database.close, CLOSE_S)
        await asyncio.to_thread(self._disk.close, CLOSE_S)

    async def _in_database(self, record: Record) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._database.submit(record)
        except Exception as error:  # noqa: BLE001 — boundary: recorder, the spool takes it
            logger.warning("spooling interaction=%s error=%r", record.id, error)
            self._spooling = True
            return False
        return True

    def _commit(self, records: list[Record]) -> None:
        with self._db.begin() as session:
            new = sum(interactions.record(session, record) for record in records)
        self._new_rows += new

    def _append(self, records: list[Record]) -> None:
        self._spool.append(records)
        self._metrics.spooled.inc(len(records))

    def _replay_if_any(self) -> None:
        """Try to empty the spool; the next tick goes on where the database still refuses."""
        give_up = time.monotonic() + REPLAY_S
        for batch in self._spool.batches():
            if not self._replay(batch) and time.monotonic() > give_up:
                return
        self._spooling = bool(self._spool.batches())

    def _replay(self, batch: Path) -> bool:
        """Commit a batch and forget it; False if it has to be tried again."""
        try:
            records, broken = self._spool.read(batch)
            if not self._committed(batch, records):
                broken += [encode(record).strip() for record in records if self._refused(record)]
            if broken:
                self._spool.quarantine(broken)
                self._metrics.quarantined.inc(len(broken))
                logger.error("quarantined records=%d batch=%s", len(broken), batch.name)
            self._spool.remove(batch)
        except Exception as error:  # noqa: BLE001 — boundary: recorder, tried again at the next tick
            logger.warning("not replayed batch=%s error=%r", batch.name, error)
            return False
        self._failed.pop(batch.name, None)
        logger.info("replayed batch=%s records=%d", batch.name, len(records))
        return True

    def _committed(self, batch: Path, records: list[Record]) -> bool:
        """Whether the batch is in the database; False if one of its records must be the reason.

        Raises:
            Exception: It is not, and the database has taken nothing else since it first failed, so
                that the database may be the reason.
        """
        try:
            self._commit(records)
        except Exception:
            if self._failed.setdefault(batch.name, self._new_rows) == self._new_rows:
                raise
            return False
        return True

    def _refused(self, record: Record) -> bool:
        try:
            self._commit([record])
        except Exception as error:  # noqa: BLE001 — boundary: recorder, the record is quarantined
            logger.error("refused interaction=%s error=%r", record.id, error)
            return True
        return False
