"""The command line for tests: `run("lessons", "ls")` on a data folder of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.cli.app import app
from store import namespaces
from store.db import Database
from tests.support.factories import NOW

WIDE = "300"


@pytest.fixture
def run(db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs a verb where there is the default namespace, and nothing in it."""
    monkeypatch.setenv("BYHEART_STORE__DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", WIDE)
    with db.begin() as session:
        namespaces.ensure(session, namespaces.DEFAULT, NOW)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return invoke
