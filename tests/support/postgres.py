"""`cluster()`: a temporary PostgreSQL on a Unix socket, with a migrated database."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from store.db import Database
from store.upgrade import upgrade

MIGRATED = "byheart"
# A test cluster need not survive a power cut.
OPTIONS = "-c listen_addresses='' -c fsync=off -c synchronous_commit=off -c full_page_writes=off"


def find_binaries() -> Path | None:
    """Return the folder with the newest `initdb`; None if PostgreSQL is not installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    return next((folder for folder in [*on_path, *debian] if (folder / "initdb").exists()), None)


@contextmanager
def cluster(binaries: Path) -> Iterator[str]:
    """Run a cluster until left; yields the folder of its socket."""
    # Not in pytest's folder: the server's user needs access, and socket paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="byheart-pg-", dir="/tmp"))
    data, log = folder / "data", folder / "log"
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def run(*command: str) -> None:
        subprocess.run(
            [*as_user, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60
        )

    initdb = [f"{binaries}/initdb", "-D", f"{data}", "-U", "byheart", "-A", "trust", "-N"]
    run(*initdb, "-E", "UTF8", "--locale=C")
    pg_ctl = [f"{binaries}/pg_ctl", "-D", f"{data}", "-w"]
    run(*pg_ctl, "-l", f"{log}", "-o", f"{OPTIONS} -k {folder}", "start")
    try:
        database = Database(create(str(folder), MIGRATED))
        upgrade(database)
        database.close()
        yield str(folder)
    finally:
        run(*pg_ctl, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def url_of(socket: str, name: str) -> str:
    """Return the URL of a database, as an operator would write it."""
    return f"postgresql://byheart@/{name}?host={socket}"


def create(socket: str, name: str, template: str = "template1") -> str:
    """Create a database from the template; returns its URL."""
    with _server(socket) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return url_of(socket, name)


def drop(socket: str, name: str) -> None:
    """Delete a database, even if connections to it are open."""
    with _server(socket) as server:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def closed(url: str) -> Iterator[None]:
    """End every connection to a database and refuse others until left."""
    address = make_url(url)
    name = str(address.database)
    with _server(str(address.query["host"])) as server:
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        try:
            yield
        finally:
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


def _server(socket: str) -> psycopg.Connection:
    return psycopg.connect(f"host={socket} user=byheart dbname=postgres", autocommit=True)
