"""Options that verbs share, and functions that print results."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.database import open_database
from config.environment import ENV_CONFIG
from config.settings import Settings, load
from store.db import Database

PLAIN_WIDTH = 200
"""Columns where standard output is a file or a pipe."""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
"""Standard output, for people."""
OPERATOR = "operator"
"""The actor in the audit log when a verb changes something."""


class Output(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file in TOML; see config/default.toml.",
        envvar=ENV_CONFIG,
    ),
]
OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="Output format: a table, or JSON for programs.")
]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Namespace to use.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@contextmanager
def open_settings_and_database(config: Path | None) -> Iterator[tuple[Settings, Database]]:
    """Load the settings and open the database until the block is left."""
    settings = load(config)
    with open_database(settings) as db:
        yield settings, db


def sanitize(value: object) -> str:
    """Return the value as text without control characters, which users may have sent."""
    return CONTROL.sub("\ufffd", str(value))


def print_rows(rows: list[dict[str, Any]], output: Output, empty: str) -> None:
    """Print rows with equal keys as a table or a JSON list; `empty` if there are none."""
    if output is Output.JSON:
        print(json.dumps(rows, indent=2, default=str))
        return
    if not rows:
        console.print(empty)
        return
    table = Table(box=None, pad_edge=False)
    *short, last = rows[0]
    for key in short:
        table.add_column(key.replace("_", " "), no_wrap=True)
    table.add_column(last.replace("_", " "), overflow="fold")
    for row in rows:
        # As Text, because what users sent may look like markup.
        table.add_row(*(Text("" if value is None else sanitize(value)) for value in row.values()))
    console.print(table)


def print_row(row: dict[str, Any], output: Output) -> None:
    """Print one row, a line per field, or as a JSON object."""
    if output is Output.JSON:
        print(json.dumps(row, indent=2, default=str))
        return
    width = max(map(len, row))
    for key, value in row.items():
        lines = [sanitize(item) for item in value] if isinstance(value, list) else [sanitize(value)]
        for index, line in enumerate(lines or [""]):
            label = key.replace("_", " ") if index == 0 else ""
            console.print(f"{label:<{width}}  {line}", markup=False)
