"""The folders of a run: checked before anything is computed, and locked by one run.

A run takes long, so the requirements of its end are checked at its start: both folders are writable
and have space, and no other run keeps checkpoints in the same work folder.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# In sizes of the adapter: a checkpoint holds the weights, the best weights and two Adam moments,
# and exists twice while it is replaced; the prepared data is about one more.
CHECKPOINT_COPIES = 9


class FolderError(Exception):
    """A folder of a run cannot be used; the message says why."""


@contextmanager
def lock_folder(work: Path) -> Iterator[None]:
    """Lock the folder of a run's checkpoints; the lock of a killed process is released.

    Raises:
        FolderError: Another process holds the lock.
    """
    folder = os.open(work, os.O_RDONLY)
    try:
        _lock(folder, work)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, work: Path) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderError(
            f"Another process is using {work}: wait for it, or choose another folder."
        ) from error


def check_writable(folder: Path) -> None:
    """Create a folder and check that it is writable.

    Raises:
        FolderError: It cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"byheart")
    except FileExistsError as error:
        raise FolderError(f"{folder} is a file; a folder is needed.") from error
    except OSError as error:
        raise FolderError(f"Cannot write to {folder}: {error.strerror}.") from error


def check_disk_space(out: Path, work: Path, adapter_bytes: int) -> None:
    """Check that the disk has space for an adapter and its checkpoints.

    The files of an interrupted run count as available, because the run replaces them.

    Raises:
        FolderError: There is not enough space.
    """
    for folder, needed in ((out, adapter_bytes), (work, CHECKPOINT_COPIES * adapter_bytes)):
        reusable = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        available = shutil.disk_usage(folder).free + reusable
        if available < needed:
            raise FolderError(
                f"{folder} has {available / 2**20:.0f} MiB of free space; this run needs about "
                f"{needed / 2**20:.0f} MiB."
            )
