"""One daemon for one data folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StartError(Exception):
    """The service cannot start; the message says why and what to do."""


@contextmanager
def only_daemon(data_dir: Path) -> Iterator[None]:
    """Hold the data folder for this process; the system lets go however the process ends.

    Raises:
        StartError: Another daemon holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (data_dir / "daemon.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"Another byheart serves from {data_dir}. Stop it, or give this one a folder of "
                "its own (store.data_dir)."
            ) from error
        yield


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
