"""The audit log tells what the operator changed at the command line."""

from pathlib import Path
from typing import Any

from store import audit
from store.db import Database
from tests.factories import add_adapter, add_lesson, go_live


def last(db: Database) -> tuple[str, str, str]:
    with db.read() as session:
        [row] = audit.page(session, None, 1)
        return row.actor, row.action, row.subject


def test_what_the_operator_starts_cancels_approves_and_rolls_back_is_told(
    db: Database, run: Any, tmp_path: Path
) -> None:
    with db.begin() as session:
        add_lesson(session, "We open at nine.", "default")
        live, candidate = go_live(session, "default"), add_adapter(session, "default").name
    prompt = tmp_path / "prompt.md"
    prompt.write_text("You are kind.")

    compiled = run("compile", str(prompt)).stdout
    assert last(db)[:2] == ("operator", "run started")
    assert last(db)[2] in compiled
    started = run("train", "now").stdout.strip()
    assert last(db) == ("operator", "run started", started)
    run("train", "cancel", started)
    assert last(db) == ("operator", "run cancelled", started)
    run("rollout", "promote", candidate)
    assert last(db) == ("operator", "approved", candidate)
    run("rollback", "--yes")
    assert last(db) == ("operator", "rollback", live)
