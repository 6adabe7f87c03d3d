"""What all verbs have in common: where the configuration comes from and how results are printed."""

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
"""Columns in a file or a pipe, which have none of their own."""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
"""Standard output, for people."""
OPERATOR = "operator"
"""Who acts, in the audit log, when a verb changes something."""


class Output(StrEnum):
    """How a verb prints what it found."""

    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file; see config/default.toml.", envvar=ENV_CONFIG),
]
OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="For people, or for programs.")
]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Whose.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@contextmanager
def opened(config: Path | None) -> Iterator[tuple[Settings, Database]]:
    """The settings and the open database of a verb that works on them."""
    settings = load(config)
    with open_database(settings) as db:
        yield settings, db


def plain(value: object) -> str:
    """A value as text that no terminal obeys: what people said may have control characters."""
    return CONTROL.sub("\ufffd", str(value))


def show(rows: list[dict[str, Any]], output: Output, empty: str) -> None:
    """Print rows of equal keys as a table, or as a JSON list."""
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
        # As text: what people said may look like markup.
        table.add_row(*(Text("" if value is None else plain(value)) for value in row.values()))
    console.print(table)


def show_one(row: dict[str, Any], output: Output) -> None:
    """Print one thing, a line for each of its parts, or as a JSON object."""
    if output is Output.JSON:
        print(json.dumps(row, indent=2, default=str))
        return
    width = max(map(len, row))
    for key, value in row.items():
        lines = [plain(part) for part in value] if isinstance(value, list) else [plain(value)]
        for index, line in enumerate(lines or [""]):
            label = key.replace("_", " ") if index == 0 else ""
            console.print(f"{label:<{width}}  {line}", markup=False)
