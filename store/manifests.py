"""Verify that an adapter's folder contains exactly the files in its manifest.

Called before an adapter is loaded and by `byheart adapters verify`; needs no database.
`manifest.json` is `{"files": {NAME: SHA-256}, "base": …, "probe": …}`. Its own hash is in the
adapter's row, so an attacker who changes a file would have to change the database too.
"""

import hashlib
import json
import os
from pathlib import Path

from store.durable_files import sha256

MANIFEST = "manifest.json"


class AdapterCorrupt(Exception):
    """An adapter on disk differs from what was trained and evaluated."""

    remedy = "It must not be loaded: restore the folder from a backup, or train again."

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: {what}. {self.remedy}")


class AdapterMissing(AdapterCorrupt):
    """The adapter's folder does not exist; its volume may not be mounted."""

    remedy = (
        "Mount its volume or restore the folder from a backup; store.data_dir must name the data "
        "folder."
    )


def verify_files(path: Path, manifest_sha256: str) -> None:
    """Compare an adapter's folder with its manifest, and the manifest with its registered hash.

    Raises:
        AdapterMissing: The folder does not exist.
        AdapterCorrupt: A file is missing, extra, not a regular file, or has different content.
    """
    if not os.path.lexists(path):
        raise AdapterMissing(path, "does not exist")
    if path.is_symlink() or not path.is_dir():
        raise AdapterCorrupt(path, "is not a folder")
    for entry in path.iterdir():
        if entry.is_symlink() or not entry.is_file():
            raise AdapterCorrupt(path, f"{entry.name} is not a regular file")
    present = {entry.name for entry in path.iterdir()}
    if MANIFEST not in present:
        raise AdapterCorrupt(path, f"{MANIFEST} is missing")
    content = (path / MANIFEST).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest_sha256:
        raise AdapterCorrupt(path, f"{MANIFEST} is not the one that was registered")
    files: dict[str, str] = json.loads(content)["files"]
    if present != files.keys() | {MANIFEST}:
        differing = ", ".join(sorted(present ^ (files.keys() | {MANIFEST})))
        raise AdapterCorrupt(path, f"missing or extra: {differing}")
    for name, expected in files.items():
        if sha256(path / name) != expected:
            raise AdapterCorrupt(path, f"{name} does not match its hash in the manifest")
