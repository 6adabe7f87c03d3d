"""One daemon for one data folder."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

TRIES, PAUSE_S = 10, 0.02
"""Whoever only looks whether a daemon runs holds the lock for a moment too."""


class StartError(Exception):
    """The service cannot start; the message says why and what to do."""


@contextmanager
def only_daemon(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for this process; the system lets go however the process ends.

    Raises:
        StartError: Another daemon holds it, or it is no folder that can be written.
    """
    with _lock_file(data_dir) as lock:
        if not any(_taken(lock) for _ in range(TRIES)):
            raise StartError(
                f"Another byheart serves from {data_dir}. Stop it, or give this one a folder of "
                "its own (store.data_dir)."
            )
        yield


def _lock_file(data_dir: Path) -> TextIO:
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (data_dir / "daemon.lock").open("w")
    except OSError as error:
        raise StartError(f"The data folder cannot be used (store.data_dir): {error}.") from error


def _taken(lock: TextIO) -> bool:
    """Take the lock; false, after a moment, where another holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(PAUSE_S)
        return False
    return True


def daemon_runs(data_dir: Path) -> bool:
    """Whether a daemon holds the data folder."""
    try:
        with (data_dir / "daemon.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
