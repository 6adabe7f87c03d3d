"""The folders of a run: made and tried before anything is computed, and one run's alone.

A run takes long, so what its end needs is looked at in its beginning: that both folders can be
written to and have room, and that no other run has its resume points in the same place.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A resume point holds the weights, the best ones and two moments of each in the optimiser. While
# one is written, the one before it is there; what the teacher answered is as large as one of these.
RESUME_POINT_COPIES = 9


class FolderError(Exception):
    """A folder of a run cannot be used; the message says why."""


@contextmanager
def lock_folder(work: Path) -> Iterator[None]:
    """Hold the folder of a run's resume points; a killed process lets go of it.

    Raises:
        FolderError: Another run holds it.
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
            f"Another process is at work in {work}: wait for it, or train in another folder."
        ) from error


def check_writable(folder: Path) -> None:
    """Make a folder, and write to it.

    Raises:
        FolderError: That does not work.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"byheart")
    except FileExistsError as error:
        raise FolderError(f"{folder} is a file: name a folder.") from error
    except OSError as error:
        raise FolderError(f"Cannot write to {folder}: {error.strerror}.") from error


def check_disk_space(out: Path, work: Path, adapter_bytes: int) -> None:
    """Make sure that an adapter and its resume points fit, or the rest of them in a resumed run.

    Raises:
        FolderError: There is not enough room.
    """
    for folder, needed in ((out, adapter_bytes), (work, RESUME_POINT_COPIES * adapter_bytes)):
        kept = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        room = shutil.disk_usage(folder).free + kept
        if room < needed:
            raise FolderError(
                f"{folder} has room for {room / 2**20:.0f} MiB; this run needs about "
                f"{needed / 2**20:.0f} MiB there."
            )
