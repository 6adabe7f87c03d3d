"""Files in the data folder that belong to the daemon process: its lock, its address, its secrets.

- `daemon.lock`: locked by the one daemon that may serve from the folder.
- `server.json`: the URL and process id of that daemon, while it serves.
- secrets (the pepper of API keys, the server's id): created once, then never changed.
"""

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

LOCK_FILE = "daemon.lock"
LOCK_ATTEMPTS, LOCK_PAUSE_S = 10, 0.02
"""`daemon_is_running` holds the lock briefly too, so one failed attempt proves nothing."""
ADDRESS_FILE = "server.json"
SECRET_BYTES = 32
SECRET = re.compile(rf"[0-9a-f]{{{2 * SECRET_BYTES}}}")


class StartError(Exception):
    """The service cannot start; the message says why and what to do."""


class SecretCorrupt(Exception):
    """A secret's file does not contain a secret."""


@contextmanager
def lock_data_dir(data_dir: Path) -> Iterator[None]:
    """Lock the data folder for this daemon; the kernel releases it however the process ends.

    Raises:
        StartError: Another daemon has locked it, or the folder is not writable.
    """
    with _open_lock_file(data_dir) as lock:
        if not any(_try_lock(lock) for _ in range(LOCK_ATTEMPTS)):
            raise StartError(
                f"Another byheart daemon is using {data_dir}. Stop it, or set store.data_dir to a "
                "different folder."
            )
        yield


def daemon_is_running(data_dir: Path) -> bool:
    """Return whether a daemon has locked the data folder."""
    try:
        with (data_dir / LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _open_lock_file(data_dir: Path) -> TextIO:
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (data_dir / LOCK_FILE).open("w")
    except OSError as error:
        raise StartError(f"Cannot use the data folder (store.data_dir): {error}.") from error


def _try_lock(lock: TextIO) -> bool:
    """Try once to take the lock; on failure pause, and return False."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(LOCK_PAUSE_S)
        return False
    return True


def write_address(path: Path, url: str) -> None:
    """Write this process's URL and process id atomically."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    temporary.replace(path)


def read_address(data_dir: Path) -> str | None:
    """Return the URL of the daemon that serves from a data folder; None if none does."""
    address_file = data_dir / ADDRESS_FILE
    if not daemon_is_running(data_dir) or not address_file.exists():
        return None  # a daemon that was killed leaves its file behind
    return str(json.loads(address_file.read_text())["url"])


def load_or_create_secret(path: Path) -> str:
    """Return the secret in a file: 64 hex digits, created with mode 0600 if the file is missing.

    Processes that create it concurrently all get the same secret.

    Raises:
        SecretCorrupt: The file contains something else.
    """
    if not path.exists():
        _create_secret(path)
    secret = path.read_text().strip()
    if not SECRET.fullmatch(secret):
        raise SecretCorrupt(
            f"{path} does not contain {2 * SECRET_BYTES} hex digits. Restore it from a backup of "
            "the data folder. If there is none, delete the file: a new one is created, and all "
            "existing API keys become invalid."
        )
    return secret


def _create_secret(path: Path) -> None:
    """Write a random secret to a temporary file, then link it: nobody reads a partial one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SECRET_BYTES))
            file.flush()
            os.fsync(descriptor)
        _link_unless_exists(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _link_unless_exists(source: Path, path: Path) -> None:
    try:
        path.hardlink_to(source)
    except FileExistsError:  # another process was faster; its secret is used
        return
