"""Random values that are made once for a data folder, and are the same at every start."""

import os
import re
import secrets
from pathlib import Path

BYTES = 32
VALUE = re.compile(rf"[0-9a-f]{{{2 * BYTES}}}")


class Spoiled(Exception):
    """A value that has to last is not there any more."""


def lasting(path: Path) -> str:
    """The value in a file that only its owner can read, 64 hex digits; made where it is not there.

    Two processes that make it at once get the same one.

    Raises:
        Spoiled: The file has something else.
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
        raise Spoiled(
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
