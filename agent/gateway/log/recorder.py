"""The durable log: once `record` returns, the interaction is on stable storage.

A request is handed over when it begins, so that what dies in flight shows, and again when it ends.
It goes to the database in group commits. A database that fails, or is slower than `timeout_s`,
costs no request more than that: the record goes to the spool instead, and later ones straight
there, until the database has taken everything back, in order, each exactly once (keeping is
idempotent by id, so a record may be in both places). Only when the spool fails too does `record`
raise, and the answer is withheld: what a client has in full is never unlogged. From then on the
engine is asked nothing whose answer would be withheld, until something can be written again.
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
"""A request that takes longer is a row while it runs; for a shorter one that would cost as much as
its end, and hold it up."""
MAX_FAILING_REPLAY_S = 5.0
"""How long a pass over the spool goes on while batches fail."""


class NotLogged(Exception):
    """A record could not be made durable."""


class Recorder:
    """Two writer threads: one for the database, one for the spool.

    Args:
        db: The database.
        spool: Where records go that the database does not take.
        metrics: Where they are counted.
        server: Which daemon this is, for what it finds of its own at the next start.
        strict: Whether a request that the database does not take must not be answered at all.
        timeout_s: How long the database may take, in seconds.
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
        """Requests that somebody will end."""
        self._aborted_marked = False
        """Whether all others that run in the database are marked as aborted."""
        self._delayed: dict[str, asyncio.TimerHandle] = {}
        """Requests that are not rows yet."""
        self._unwritten: set[str] = set()
        """Of those that wait to be written, the ones that are certainly no rows yet."""
        self._spooling = False
        self._withholding = False
        self._new_rows = 0
        self._failed: dict[str, int] = {}
        """How many rows were new when a batch first failed."""
        self._database = GroupCommit(
            "record-database", self._commit, capacity=MAX_QUEUED_RECORDS, idle=self._catch_up
        )
        self._disk = GroupCommit("record-spool", self._append, capacity=MAX_QUEUED_RECORDS)
        metrics.watch_queue(lambda: self._database.waiting + self._disk.waiting)
        metrics.watch_spool(lambda: self._spool.count)

    @property
    def degraded(self) -> bool:
        """Whether records go to the spool, or nothing takes them."""
        return self._spooling or self._withholding

    @property
    def rejects_requests(self) -> bool:
        """Whether the engine is asked nothing, because no answer could be logged."""
        return self._withholding or (self._strict and self._spooling)

    def start(self) -> None:
        """Begin to write, with what an earlier process left in the spool."""
        self._spooling = self._spool.count > 0
        self._database.start()
        self._disk.start()

    async def record_running(self, interaction: str, record: Callable[[], Record]) -> None:
        """Say that a request is going to be answered; waits only where it may have to be refused.

        Args:
            interaction: Its identifier.
            record: Makes its record, which is wanted of few.

        Raises:
            NotLogged: Its answer could not be logged, so the engine should not be asked.
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
        """Make an interaction durable.

        Raises:
            NotLogged: Neither the database nor the spool could take it.
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
        """Write what is waiting and end."""
        await asyncio.to_thread(self._database.close, CLOSE_TIMEOUT_S)
        await asyncio.to_thread(self._disk.close, CLOSE_TIMEOUT_S)

    async def _require_database(self, record: Callable[[], Record]) -> None:
        if self._spooling:
            raise NotLogged("the database does not take anything")
        if not await self._in_database(record()):
            raise NotLogged("the database did not take it in time")

    def _write_running(self, make: Callable[[], Record]) -> None:
        """Have a running request written, which nobody waits for."""
        record = make()
        del self._delayed[record.id]
        (self._disk if self._spooling else self._database).submit_nowait(record)

    async def _in_database(self, record: Record) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._database.submit(record)
        except Exception as error:  # noqa: BLE001 — boundary: recorder, the spool takes it
            log.warning("spooling", interaction=record.id, error=repr(error))
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
            raise NotLogged(f"neither database nor spool take it: {error}") from error

    def _abandon(self, interaction: str) -> None:
        """Have the row aborted that nobody will end; it may still be on its way."""
        self._unfinished.discard(interaction)
        self._aborted_marked = False

    def _commit(self, batch: list[Record]) -> None:
        with self._db.writing() as connection:
            kept = records.keep(connection, batch, self._unwritten)
            reach("before commit")
        reach("committed")
        self._new_rows += kept
        if any(record.is_running and record.id not in self._unfinished for record in batch):
            self._aborted_marked = False  # left while it was on its way

    def _append(self, batch: list[Record]) -> None:
        self._spool.append(batch)
        self._metrics.spooled.inc(sum(not record.is_running for record in batch))

    def _catch_up(self) -> None:
        """Try to empty the spool; the next tick goes on where something still refuses."""
        give_up = time.monotonic() + MAX_FAILING_REPLAY_S
        for batch in self._spool.batches():
            if not self._replay(batch) and time.monotonic() > give_up:
                return
        if not self._spool.count and (self._spooling or not self._aborted_marked):
            self._mark_aborted()  # fails where the database takes nothing yet
        self._spooling = self._spool.count > 0
        if self._withholding and not self._spooling and self._spool.is_writable():
            self._withholding = False

    def _mark_aborted(self) -> None:
        """Nobody will end these any more: every end that was recorded is in the database by now."""
        self._aborted_marked = True
        try:
            with self._db.begin() as session:
                died = records.abort_running(session, self.server, set(self._unfinished))
        except Exception:
            self._aborted_marked = False
            raise
        if died:
            log.warning("aborted", interactions=died)

    def _replay(self, batch: Path) -> bool:
        """Commit a batch and forget it; False if it has to be tried again."""
        has_failed = batch.name in self._failed
        try:
            spooled, broken = self._spool.read(batch)
            if not self._committed(batch, spooled):
                broken += [encode(record).strip() for record in spooled if self._refused(record)]
            if broken:
                self._spool.quarantine(broken)
                self._metrics.quarantined.inc(len(broken))
                log.error("quarantined", records=len(broken), batch=batch.name)
            reach("replayed")
            self._spool.remove(batch)
        except Exception as error:  # noqa: BLE001 — boundary: recorder, tried again at the next tick
            if not has_failed:
                log.warning("not replayed", batch=batch.name, error=repr(error))
            return False
        self._failed.pop(batch.name, None)
        log.info("replayed", batch=batch.name, records=len(spooled))
        return True

    def _committed(self, batch: Path, spooled: list[Record]) -> bool:
        """Whether the batch is in the database; False if one of its records must be the reason.

        Raises:
            Exception: It is not, and the database has taken nothing else since it first failed, so
                that the database may be the reason.
        """
        try:
            self._commit(spooled)
        except Exception:
            if self._failed.setdefault(batch.name, self._new_rows) == self._new_rows:
                raise
            return False
        return True

    def _refused(self, record: Record) -> bool:
        try:
            self._commit([record])
        except Exception as error:  # noqa: BLE001 — boundary: recorder, the record is quarantined
            log.error("refused", interaction=record.id, error=repr(error))
            return True
        return False
