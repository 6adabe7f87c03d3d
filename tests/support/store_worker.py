"""One process of several at one database; what it does is the first argument, on a line's sign.

    python -m tests.support.store_worker claim URL

Prints one line per committed step, after the commit.
"""

import sys
from datetime import UTC, datetime

from store import interactions, jobs, namespaces, records
from store.db import Database
from store.upgrade import upgrade
from tests.support.factories import make_record

STORM_ROUNDS = 25


def claim(db: Database) -> None:
    """Take jobs under a lease that is over at once, so that every job is contended for again."""
    while True:
        with db.begin() as session:
            taken = jobs.claim(session, ["work"], datetime.now(UTC), lease_s=0.0)
        if taken is None:
            return
        print(taken.id, taken.fence, flush=True)


def storm(db: Database) -> None:
    """Create the schema if nobody has, then write and read in turn: in all, not one lock error."""
    upgrade(db)
    with db.begin() as session:
        namespaces.ensure(session, "shop", datetime.now(UTC))
    for _ in range(STORM_ROUNDS):
        with db.begin() as session:
            interactions.recent(session, "shop", 1)  # reads first, then writes
            made = make_record()
            records.save(session.connection(), [made])
        with db.read() as session:
            assert interactions.get(session, made.id)
        print(made.id, flush=True)


def record(db: Database) -> None:
    """Record interactions until killed."""
    while True:
        made = make_record()
        with db.begin() as session:
            records.save(session.connection(), [made])
        print(made.id, flush=True)


if __name__ == "__main__":
    database = Database(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    {"claim": claim, "storm": storm, "record": record}[sys.argv[1]](database)
    database.close()
