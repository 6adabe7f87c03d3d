"""The data folder: held by one daemon, whose address and secrets are kept there."""

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

ADDRESS_FILE = "server.json"
"""In the data folder while a daemon serves: its address and process."""
BYTES = 32
VALUE = re.compile(rf"[0-9a-f]{{{2 * BYTES}}}")
TRIES, PAUSE_S = 10, 0.02
"""Whoever only looks whether a daemon runs holds the lock for a moment too."""


class SecretCorrupt(Exception):
    """A value that has to last is not there any more."""


class StartError(Exception):
    """The service cannot start; the message says why and what to do."""


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
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


def daemon_is_running(data_dir: Path) -> bool:
    """Whether a daemon holds the data folder."""
    try:
        with (data_dir / "daemon.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def write_address(path: Path, url: str) -> None:
    """Write the address of this process."""
    written = path.with_suffix(".tmp")
    written.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    written.replace(path)


def read_address(data_dir: Path) -> str | None:
    """Where the daemon of a data folder listens; None where none does."""
    discovery = data_dir / ADDRESS_FILE
    if not daemon_is_running(data_dir) or not discovery.exists():
        return None  # a file without a daemon was left by one that was killed
    return str(json.loads(discovery.read_text())["url"])


def load_or_create_secret(path: Path) -> str:
    """The value in a file that only its owner can read, 64 hex digits; made where it is not there.

    Two processes that make it at once get the same one.

    Raises:
        SecretCorrupt: The file has something else.
    """
    beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(BYTES))
                file.flush()
                os.fsync(descriptor)
            _link(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    value = path.read_text().strip()
    if not VALUE.fullmatch(value):
        raise SecretCorrupt(
            f"{path} has no value of {2 * BYTES} hex digits: restore it from a backup of the data "
            "folder. Without it, every key made so far is void; then delete the file."
        )
    return value


def _link(beside: Path, path: Path) -> None:
    """Give a complete file its name, unless another has it already."""
    try:
        path.hardlink_to(beside)
    except FileExistsError:
        return
