"""Folders and files written atomically and durably: complete on stable storage, or absent.

Used for everything that another process may read: the embedded model, checkpoints and adapters. A
file or folder under its final name is complete. Temporary names left by a killed process are
removed by the next write to the same place.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STAGING = ".staging-"


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Yield a temporary folder in `parent`; removed at the end, unless it was published.

    The process holds a lock on the folder, which the kernel releases if the process is killed;
    unlocked folders are removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with _opened(parent) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _remove_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=parent))
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{STAGING}*"):
        # If it is locked or has just disappeared, its process is alive.
        with suppress(BlockingIOError, FileNotFoundError), _opened(folder) as staged:
            fcntl.flock(staged, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def publish(folder: Path, target: Path) -> None:
    """Sync a staged folder to stable storage and rename it to its final name.

    If another process has created `target` in the meantime, that folder stays: names are derived
    from content, so both are equal.
    """
    folder.chmod(0o755)
    for path in sorted(folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        sync(path)
    sync(folder)
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    sync(target.parent)


def write_file(target: Path, content: bytes) -> None:
    """Replace `target` atomically with a synced file; no other process may write it.

    Raises:
        OSError: It cannot be written, for example on a full disk; the error names `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)  # left by a killed process, or a planted link
    try:
        with partial.open("xb") as file:
            file.write(content)
        sync(partial)
        partial.replace(target)
    except OSError as error:
        error.filename = str(target)  # a failed write does not name its file
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync(target.parent)


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to stable storage."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
