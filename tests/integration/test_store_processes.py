"""Several processes with one database: no job twice, no lock error, no lost commit."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store import interactions, jobs, namespaces
from store.db import Database
from store.operations import Job
from store.schema import JobStatus
from tests.support import store_worker
from tests.support.factories import NOW

KILLS = 3
ROOT = Path(__file__).parents[2]


@contextmanager
def _workers(what: str, url: str, count: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that have opened the database and begin together."""
    command = [sys.executable, "-m", "tests.support.store_worker", what, url]
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for _ in range(count)
    ]
    try:
        for worker in workers:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n", worker.communicate()[1]
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _lines(workers: list["subprocess.Popen[str]"]) -> list[str]:
    """All that they printed; fails where one failed."""
    printed = []
    for worker in workers:
        output, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
        printed += output.splitlines()
    return printed


def test_four_processes_never_claim_a_job_twice_at_the_same_fence(any_db: Database) -> None:
    attempts = 3
    with any_db.begin() as session:
        queued = [jobs.enqueue(session, "work", {}, NOW, max_attempts=attempts) for _ in range(40)]
    with _workers("claim", any_db.url, 4) as workers:
        claimed = [tuple(line.split()) for line in _lines(workers)]
    fences = [str(fence) for fence in range(1, attempts + 1)]
    assert sorted(claimed) == sorted(itertools.product(map(str, queued), fences))
    with any_db.read() as session:
        rows = [session.get_one(Job, job) for job in queued]
        assert {row.status for row in rows} == {JobStatus.FAILED}


def test_eight_processes_write_sqlite_without_a_lock_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'byheart.db'}"
    with _workers("storm", url, 8) as workers:
        printed = _lines(workers)
    assert len(set(printed)) == 8 * store_worker.STORM_ROUNDS
    database = Database(url)
    database.check()
    with database.read() as session:
        assert all(interactions.get(session, one) for one in printed)
    database.close()


def test_committed_rows_survive_kill_9(any_db: Database) -> None:
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    for _ in range(KILLS):
        with _workers("record", any_db.url, 1) as (worker,):
            assert worker.stdout
            printed = [worker.stdout.readline().strip() for _ in range(20)]
            worker.kill()
            # The last line may have been cut off by the kill.
            printed += worker.stdout.read().split("\n")[:-1]
        with any_db.read() as session:
            rows = [interactions.get(session, one) for one in printed]
            texts = [interactions.payload(session, one) for one in printed]
        assert all(rows)
        assert all(texts)
    any_db.check()
