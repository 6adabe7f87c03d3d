"""Results of a benchmark that is run in pieces: a line of JSON for each."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read(results: Path) -> Iterator[dict[str, Any]]:
    """What was measured so far."""
    if results.exists():
        yield from map(json.loads, results.read_text().splitlines())


def append(results: Path, line: dict[str, Any]) -> None:
    """Keep what was measured."""
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")
