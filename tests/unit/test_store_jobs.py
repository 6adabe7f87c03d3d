"""The job queue: leases, fences, attempts and unique keys, against a model of them."""

import contextlib
import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from store import jobs
from store.db import Database
from store.jobs import Claim, LeaseLost
from store.operations import Job
from store.schema import JobStatus
from tests.support.factories import NOW, later

LEASE_S = 30.0
_examples = itertools.count()


@dataclass
class Expected:
    """What the queue has to know of one job."""

    key: str | None
    run_at: datetime
    max_attempts: int
    status: JobStatus = JobStatus.READY
    lease_until: datetime = NOW
    fence: int = 0
    attempts: int = 0
    claims: list[Claim] = field(default_factory=list)

    def is_due(self, now: datetime) -> bool:
        if self.status is JobStatus.RUNNING:
            return self.lease_until <= now
        return self.status is JobStatus.READY and self.run_at <= now

    def is_unfinished(self) -> bool:
        return self.status in jobs.UNFINISHED


class Queue(RuleBasedStateMachine):
    """Random workers on a random clock; the queue must do what `Expected` says."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self.db = db
        self.now = NOW
        self.kind = f"kind-{next(_examples)}"  # a queue of its own
        self.jobs: dict[str, Expected] = {}

    @rule(
        key=st.sampled_from([None, "a", "b"]),
        delay=st.integers(-40, 40),
        max_attempts=st.integers(1, 3),
    )
    def enqueue(self, key: str | None, delay: int, max_attempts: int) -> None:
        unique = f"{self.kind}:{key}" if key else None
        run_at = self.now + timedelta(seconds=delay)
        with self.db.begin() as session:
            job = jobs.enqueue(session, self.kind, {}, self.now, unique, run_at, max_attempts)
        taken = key and any(one.key == key and one.is_unfinished() for one in self.jobs.values())
        assert (job is None) == bool(taken)
        if job:
            self.jobs[job] = Expected(key, run_at, max_attempts)

    @rule()
    def claim(self) -> None:
        with self.db.begin() as session:
            got = jobs.claim(session, [self.kind], self.now, LEASE_S)
        due = sorted((one.run_at, id) for id, one in self.jobs.items() if one.is_due(self.now))
        expected = None
        for _, job in due:
            if self.jobs[job].attempts < self.jobs[job].max_attempts:
                expected = job
                break
            self.jobs[job].status = JobStatus.FAILED
        assert (got.id if got else None) == expected
        if got:
            one = self.jobs[got.id]
            one.status = JobStatus.RUNNING
            one.fence, one.attempts = one.fence + 1, one.attempts + 1
            one.lease_until = self.now + timedelta(seconds=LEASE_S)
            one.claims.append(got)
            assert (got.fence, got.attempts) == (one.fence, one.attempts)

    @rule(data=st.data(), how=st.sampled_from(["finish", "retry", "give up", "give back", "beat"]))
    def work(self, data: st.DataObject, how: str) -> None:
        claims = [claim for one in self.jobs.values() for claim in one.claims]
        if not claims:
            return
        claim = data.draw(st.sampled_from(claims))
        one = self.jobs[claim.id]
        is_held = one.status is JobStatus.RUNNING and one.fence == claim.fence
        if how == "beat":
            with self.db.begin() as session:
                assert jobs.heartbeat(session, claim, self.now, LEASE_S) == is_held
        elif is_held:
            self._end(claim, how)
        else:
            with pytest.raises(LeaseLost):
                self._end(claim, how)
        if is_held:
            self._expect(one, how)

    def _end(self, claim: Claim, how: str) -> None:
        with self.db.begin() as session:
            if how == "finish":
                jobs.finish(session, claim, self.now)
            elif how == "give back":
                jobs.release(session, claim, self.now)
            else:
                jobs.fail(session, claim, "Broken.", self.now, 5.0 if how == "retry" else None)

    def _expect(self, one: Expected, how: str) -> None:
        if how == "beat":
            one.lease_until = self.now + timedelta(seconds=LEASE_S)
        elif how == "finish":
            one.status = JobStatus.DONE
        elif how == "give back":
            one.status, one.run_at, one.attempts = JobStatus.READY, self.now, one.attempts - 1
        elif how == "retry" and one.attempts < one.max_attempts:
            one.status, one.run_at = JobStatus.READY, self.now + timedelta(seconds=5)
        else:
            one.status = JobStatus.FAILED

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.jobs:
            job = data.draw(st.sampled_from(sorted(self.jobs)))
            with self.db.begin() as session:
                assert jobs.cancel(session, job, self.now) == self.jobs[job].is_unfinished()
            if self.jobs[job].is_unfinished():
                self.jobs[job].status = JobStatus.CANCELLED

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def teardown(self) -> None:
        with self.db.read() as session:
            for job, one in self.jobs.items():
                row = session.get_one(Job, job)
                assert (row.status, row.fence, row.attempts) == (
                    one.status,
                    one.fence,
                    one.attempts,
                )
                assert (row.finished_at is None) == one.is_unfinished()


def test_the_queue_keeps_leases_fences_attempts_and_keys(any_db: Database) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Queue(any_db),
        settings=settings(max_examples=20, stateful_step_count=20),
    )


def _claim(db: Database, now: datetime) -> Claim | None:
    with db.begin() as session:
        return jobs.claim(session, ["extract"], now, LEASE_S)


def _enqueue(db: Database, **options: object) -> str:
    with db.begin() as session:
        job = jobs.enqueue(session, "extract", {"n": 1}, NOW, **options)  # type: ignore[arg-type]
    assert job
    return job


def test_a_job_that_kills_its_worker_runs_out_of_attempts(any_db: Database) -> None:
    job = _enqueue(any_db, max_attempts=2)
    assert _claim(any_db, NOW)
    assert _claim(any_db, later(31))
    assert _claim(any_db, later(62)) is None
    with any_db.read() as session:
        row = jobs.listing(session, 1)[0]
    assert (row.id, row.status) == (job, JobStatus.FAILED)
    assert row.error == "Its worker died or hung in each of 2 attempts."


def test_a_job_without_attempts_left_does_not_block_the_next_one(any_db: Database) -> None:
    _enqueue(any_db, max_attempts=1)
    assert _claim(any_db, NOW)
    behind = _enqueue(any_db, run_at=later(20))
    claim = _claim(any_db, later(31))
    assert claim is not None
    assert claim.id == behind


def test_the_effects_of_a_zombie_are_not_committed(any_db: Database) -> None:
    _enqueue(any_db)
    zombie = _claim(any_db, NOW)
    successor = _claim(any_db, later(31))
    assert zombie
    assert successor

    def finish_with_effects() -> None:
        with any_db.begin() as session:
            jobs.enqueue(session, "effect", {}, NOW)
            jobs.finish(session, zombie, later(32))

    with pytest.raises(LeaseLost, match="taken over"):
        finish_with_effects()
    with any_db.begin() as session:
        assert jobs.claim(session, ["effect"], later(32), LEASE_S) is None
        jobs.finish(session, successor, later(32))


def test_jobs_of_other_kinds_are_not_claimed(any_db: Database) -> None:
    with any_db.begin() as session:
        jobs.enqueue(session, "train", {"run": "r"}, NOW)
    assert _claim(any_db, NOW) is None


# SQLite has one writer at a time: nothing can be locked beside it.
@pytest.mark.parametrize("any_db", ["shared_postgres"], indirect=True)
def test_a_locked_job_is_skipped(any_db: Database) -> None:
    first, second = _enqueue(any_db), _enqueue(any_db)
    with any_db.begin() as slow:
        taken = jobs.claim(slow, ["extract"], NOW, LEASE_S)
        other = _claim(any_db, NOW)
    assert taken
    assert other
    assert {taken.id, other.id} == {first, second}


def test_a_rolled_back_transaction_enqueues_no_job(any_db: Database) -> None:
    with contextlib.suppress(ZeroDivisionError), any_db.begin() as session:
        jobs.enqueue(session, "extract", {}, NOW)
        _ = 1 / 0
    assert _claim(any_db, NOW) is None
