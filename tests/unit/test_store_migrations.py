"""What each migration does to the rows of an older release."""

from pathlib import Path

from sqlalchemy import text

from store import adapters
from store.db import Database
from store.upgrade import run_migrations, upgrade

NAME = "bh-1"


def test_paths_of_adapters_become_relative_to_the_data_folder(blank_url: str) -> None:
    database = Database(blank_url)
    run_migrations(database.engine, "0006_auxiliary")
    stored = {
        NAME: f"/srv/byheart/adapters/shop/{NAME}",
        "bh-2": "/mnt/of a worker/adapters/shop/bh-2",
        "bh-3": "/elsewhere/bh-3",
    }
    insert_adapters(database, stored)

    upgrade(database)

    with database.read() as session:
        folders = {
            name: adapters.folder(adapters.get_one(session, name), Path("/data")) for name in stored
        }
    assert folders == {
        NAME: Path("/data/adapters/shop", NAME),
        "bh-2": Path("/data/adapters/shop/bh-2"),
        "bh-3": Path("/elsewhere/bh-3"),
    }
    database.close()


def insert_adapters(database: Database, paths: dict[str, str]) -> None:
    """Rows as 0.1 before its release wrote them."""
    with database.begin() as session:
        at = {"at": "2026-01-01 00:00:00.000000"}
        session.execute(
            text("INSERT INTO namespaces (name, revision, created_at) VALUES ('shop', 0, :at)"), at
        )
        session.execute(
            text(
                "INSERT INTO snapshots (hash, namespace, lessons, created_at) "
                "VALUES ('h', 'shop', '[]', :at)"
            ),
            at,
        )
        session.execute(
            text(
                "INSERT INTO runs (id, namespace, status, snapshot, settings, trigger, progress, "
                "created_at) VALUES ('run_1', 'shop', 'published', 'h', '{}', 'a test', '{}', :at)"
            ),
            at,
        )
        for name, path in paths.items():
            session.execute(
                text(
                    "INSERT INTO adapters (name, namespace, run, snapshot, path, manifest_sha256, "
                    "status, created_at) VALUES (:name, 'shop', 'run_1', 'h', :path, '0', "
                    "'retired', :at)"
                ),
                at | {"name": name, "path": path},
            )
