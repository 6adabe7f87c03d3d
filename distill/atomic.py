"""Folders and files that appear at once, whole and on stable storage, or not at all.

Used for everything another process may read: the embedded model, checkpoints and adapters. What is
under its final name is complete; what is under a temporary name is litter of a killed process.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """A temporary folder in `parent`; gone when the block ends, unless it was settled."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settle(folder: Path, target: Path) -> None:
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
    """Replace `target` by `content`, through a synced temporary file and a rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
