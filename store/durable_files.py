"""Folders and files that appear at once, whole and on stable storage, or not at all.

Used for everything another process may read: the embedded model, checkpoints and adapters. What is
under its final name is complete; what is under a temporary name was left by a killed process, and
goes with the next write to the same place.
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
    """A temporary folder in `parent`; gone when the block ends, unless it was settled.

    Its maker holds a lock on it, which a killed process loses: what nobody holds is removed.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with _opened(parent) as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        _remove_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=parent))
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{STAGING}*"):
        # Locked, or gone in this moment: its maker is alive.
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
    """Give a staged folder its final name, with everything in it on stable storage.

    If another process has put `target` there in the meantime, that one stays: the names used here
    follow from the content.
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
    """Replace `target`, which this process alone writes, through a synced file and a rename.

    Raises:
        OSError: It cannot be written, on a full disk for one; the error names `target`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)  # what a killed process left, or a link that somebody put there
    try:
        with partial.open("xb") as file:
            file.write(content)
        sync(partial)
        partial.replace(target)
    except OSError as error:
        error.filename = str(target)  # a write knows none, and "no space left" says not where
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync(target.parent)


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to stable storage."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
