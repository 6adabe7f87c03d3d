"""The durable log: when `record` returns, the interaction is on stable storage.

A request is recorded when it starts, so that one that dies in flight is visible, and again when it
ends. Records are written to the database in group commits. If the database fails, or is slower
than `timeout_s`, the record goes to the spool instead, and later records go there directly, until
the spool has been replayed into the database in order. Storing a record is idempotent by its id, so
a record that is in both places is stored once.

If the spool fails too, `record` raises and the answer is withheld: a client never has a complete
answer that is not logged. From then on new requests are rejected before the engine gets them, until
records can be written again.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from agent.gateway.log.group_commit import GroupCommit
from agent.gateway.log.spool import Spool, encode
from agent.gateway.metrics import Metrics
from agent.process.failpoint import reach
from store import records
from store.db import Database
from store.records import Record

log = structlog.get_logger(__name__)

MAX_QUEUED_RECORDS = 4096
CLOSE_TIMEOUT_S = 15.0
RUNNING_ROW_DELAY_S = 0.05
"""Only a request that takes longer gets a row while it runs: that row costs as much as the final
one, and delays it."""
MAX_FAILING_REPLAY_S = 5.0
"""How long a replay of the spool continues while batches fail."""


class NotLogged(Exception):
    """A record could not be made durable."""


class Recorder:
    """Two writer threads: one for the database, one for the spool.

    Args:
        db: The database.
        spool: Stores the records that the database does not accept.
        metrics: Counts spooled and quarantined records.
        server: Identifies this daemon, whose next start aborts its interrupted requests.
        strict: Whether to reject requests while the database accepts no records.
        timeout_s: Maximum time for the database to store a record.
    """

    def __init__(
        self,
        db: Database,
        spool: Spool,
        metrics: Metrics,
        *,
        server: str = "",
        strict: bool = False,
        timeout_s: float = 2.0,
    ) -> None:
        self.server = server
        self._db = db
        self._spool = spool
        self._metrics = metrics
        self._strict = strict
        self._timeout_s = timeout_s
        self._unfinished: set[str] = set()
        """Requests whose end will be recorded."""
        self._aborted_marked = False
        """Whether all other running rows in the database have been marked as aborted."""
        self._delayed: dict[str, asyncio.TimerHandle] = {}
        """Requests whose row for `running` is not written yet."""
        self._unwritten: set[str] = set()
        """Queued records that certainly have no row yet."""
        self._spooling = False
        self._withholding = False
        self._new_rows = 0
        self._failed: dict[str, int] = {}
        """By failed batch: how many rows had been stored when it first failed."""
        self._database = GroupCommit(
            "record-database", self._commit, capacity=MAX_QUEUED_RECORDS, idle=self._catch_up
        )
        self._disk = GroupCommit("record-spool", self._append, capacity=MAX_QUEUED_RECORDS)
        metrics.watch_queue(lambda: self._database.waiting + self._disk.waiting)
        metrics.watch_spool(lambda: self._spool.count)

    @property
    def degraded(self) -> bool:
        """Whether records go to the spool, or cannot be written at all."""
        return self._spooling or self._withholding

    @property
    def rejects_requests(self) -> bool:
        """Whether new requests are rejected because they could not be logged."""
        return self._withholding or (self._strict and self._spooling)

    def start(self) -> None:
        """Start writing, beginning with what an earlier process left in the spool."""
        self._spooling = self._spool.count > 0
        self._database.start()
        self._disk.start()

    async def record_running(self, interaction: str, record: Callable[[], Record]) -> None:
        """Record that a request is running; wait for the write only if it may be rejected.

        Args:
            interaction: The request's identifier.
            record: Returns its record; not called for short requests.

        Raises:
            NotLogged: The answer could not be logged, so the engine must not get the request.
        """
        self._unfinished.add(interaction)
        try:
            if self._strict:
                await self._require_database(record)
            if self._withholding:
                await self.record(record())
            elif not self._strict:
                loop = asyncio.get_running_loop()
                self._delayed[interaction] = loop.call_later(
                    RUNNING_ROW_DELAY_S, self._write_running, record
                )
        except BaseException:
            self._abandon(interaction)
            raise

    async def record(self, record: Record) -> None:
        """Write an interaction to stable storage.

        Raises:
            NotLogged: Neither the database nor the spool accepted it.
        """
        if record.id in self._delayed:
            self._delayed.pop(record.id).cancel()
            self._unwritten.add(record.id)
        try:
            if self._spooling or not await self._in_database(record):
                await self._in_spool(record)
        finally:
            self._unwritten.discard(record.id)
            if not record.is_running:
                self._unfinished.discard(record.id)
        self._withholding = False

    async def close(self) -> None:
        """Write what is waiting and stop."""
        await asyncio.to_thread(self._database.close, CLOSE_TIMEOUT_S)
        await asyncio.to_thread(self._disk.close, CLOSE_TIMEOUT_S)

    async def _require_database(self, record: Callable[[], Record]) -> None:
        if self._spooling:
            raise NotLogged("the database accepts no records")
        if not await self._in_database(record()):
            raise NotLogged("the database did not store the record in time")

    def _write_running(self, make: Callable[[], Record]) -> None:
        """Queue the row of a running request, without waiting for it."""
        record = make()
        del self._delayed[record.id]
        (self._disk if self._spooling else self._database).submit_nowait(record)

    async def _in_database(self, record: Record) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._database.submit(record)
        except Exception as error:  # noqa: BLE001 — boundary: recorder, the record goes to the spool
            log.warning("database write failed, spooling", interaction=record.id, error=repr(error))
            self._unwritten.discard(
                record.id
            )  # the batch may still commit it, before the spool does
            self._spooling = True
            return False
        return True

    async def _in_spool(self, record: Record) -> None:
        try:
            await self._disk.submit(record)
        except Exception as error:  # boundary: recorder, the answer is withheld
            self._withholding = True
            self._abandon(record.id)
            raise NotLogged(
                f"neither the database nor the spool accepted the record: {error}"
            ) from error

    def _abandon(self, interaction: str) -> None:
        """Give up a request whose end will not be recorded; an idle pass aborts its row."""
        self._unfinished.discard(interaction)
        self._aborted_marked = False

    def _commit(self, batch: list[Record]) -> None:
        with self._db.begin_connection() as connection:
            new_rows = records.save(connection, batch, self._unwritten)
            reach("before commit")
        reach("committed")
        self._new_rows += new_rows
        if any(record.is_running and record.id not in self._unfinished for record in batch):
            self._aborted_marked = False  # abandoned while its row was queued

    def _append(self, batch: list[Record]) -> None:
        self._spool.append(batch)
        self._metrics.spooled.inc(sum(not record.is_running for record in batch))

    def _catch_up(self) -> None:
        """Replay the spool; the next idle pass retries what still fails."""
        give_up = time.monotonic() + MAX_FAILING_REPLAY_S
        for batch in self._spool.batches():
            if not self._replay(batch) and time.monotonic() > give_up:
                return
        if not self._spool.count and (self._spooling or not self._aborted_marked):
            self._mark_aborted()  # raises if the database is still unavailable
        self._spooling = self._spool.count > 0
        if self._withholding and not self._spooling and self._spool.is_writable():
            self._withholding = False

    def _mark_aborted(self) -> None:
        """Abort running rows whose end will never be recorded.

        Called when the spool is empty: every recorded end is in the database.
        """
        self._aborted_marked = True
        try:
            with self._db.begin() as session:
                aborted = records.abort_running(session, self.server, set(self._unfinished))
        except Exception:
            self._aborted_marked = False
            raise
        if aborted:
            log.warning("interrupted requests marked as aborted", interactions=aborted)

    def _replay(self, batch: Path) -> bool:
        """Commit a batch and remove it; return False if it must be retried."""
        has_failed = batch.name in self._failed
        try:
            spooled, broken = self._spool.read(batch)
            if not self._committed(batch, spooled):
                broken += [
                    encode(record).strip() for record in spooled if self._is_rejected(record)
                ]
            if broken:
                self._spool.quarantine(broken)
                self._metrics.quarantined.inc(len(broken))
                log.error("records quarantined", records=len(broken), batch=batch.name)
            reach("replayed")
            self._spool.remove(batch)
        except Exception as error:  # noqa: BLE001 — boundary: recorder, tried again at the next tick
            if not has_failed:
                log.warning("batch not replayed", batch=batch.name, error=repr(error))
            return False
        self._failed.pop(batch.name, None)
        log.info("batch replayed", batch=batch.name, records=len(spooled))
        return True

    def _committed(self, batch: Path, spooled: list[Record]) -> bool:
        """Commit a batch; return False if one of its records must be the cause of the failure.

        Raises:
            Exception: The commit failed, and the database has stored nothing since the batch first
                failed, so the database itself may be the cause.
        """
        try:
            self._commit(spooled)
        except Exception:
            if self._failed.setdefault(batch.name, self._new_rows) == self._new_rows:
                raise
            return False
        return True

    def _is_rejected(self, record: Record) -> bool:
        try:
            self._commit([record])
        except Exception as error:  # noqa: BLE001 — boundary: recorder, the record is quarantined
            log.error("record rejected by the database", interaction=record.id, error=repr(error))
            return True
        return False
