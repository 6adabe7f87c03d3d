"""Where the daemon of a data folder listens: written by the daemon, read by the command line."""

import json
import os
from pathlib import Path

from agent.lock import daemon_runs

DISCOVERY = "server.json"
"""In the data folder while a daemon serves: its address and process."""


def announce(path: Path, url: str) -> None:
    """Write the address of this process."""
    written = path.with_suffix(".tmp")
    written.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    written.replace(path)


def address(data_dir: Path) -> str | None:
    """Where the daemon of a data folder listens; None where none does."""
    discovery = data_dir / DISCOVERY
    if not daemon_runs(data_dir) or not discovery.exists():
        return None  # a file without a daemon was left by one that was killed
    return str(json.loads(discovery.read_text())["url"])
