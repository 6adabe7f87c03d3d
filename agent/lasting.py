"""Random values that are made once for a data folder, and are the same at every start."""

import os
import secrets
from pathlib import Path

BYTES = 32


def lasting(path: Path) -> str:
    """The value in a file that only its owner can read, 64 hex digits; made where it is not there.

    Two processes that make it at once get the same one.
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
    return path.read_text().strip()


def _link(beside: Path, path: Path) -> None:
    """Give a complete file its name, unless another has it already."""
    try:
        path.hardlink_to(beside)
    except FileExistsError:
        return
