"""A worker process for tests in which several processes share one database.

    python -m tests.support.store_worker claim URL

Prints `ready`, waits for a line on standard input, then runs the named function. Prints one line
for each step after its commit.
"""

import sys
from datetime import UTC, datetime

from store import interactions, jobs, namespaces, records
from store.db import Database
from store.upgrade import upgrade
from tests.support.factories import make_record

STORM_ROUNDS = 25


def claim(db: Database) -> None:
    """Claim jobs under a lease that expires immediately, so that workers contend for every job."""
    while True:
        with db.begin() as session:
            taken = jobs.claim(session, ["work"], datetime.now(UTC), lease_s=0.0)
        if taken is None:
            return
        print(taken.id, taken.fence, flush=True)


def storm(db: Database) -> None:
    """Create the schema if it is missing, then read and write in turn without a lock error."""
    upgrade(db)
    with db.begin() as session:
        namespaces.ensure(session, "shop", datetime.now(UTC))
    for _ in range(STORM_ROUNDS):
        with db.begin() as session:
            interactions.recent(session, "shop", 1)  # reads first, then writes
            saved = make_record()
            records.save(session.connection(), [saved])
        with db.read() as session:
            assert interactions.get(session, saved.id)
        print(saved.id, flush=True)


def record(db: Database) -> None:
    """Record interactions until killed."""
    while True:
        saved = make_record()
        with db.begin() as session:
            records.save(session.connection(), [saved])
        print(saved.id, flush=True)


if __name__ == "__main__":
    database = Database(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    {"claim": claim, "storm": storm, "record": record}[sys.argv[1]](database)
    database.close()
