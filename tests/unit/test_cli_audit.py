"""The operator's changes at the command line are in the audit log."""

from pathlib import Path
from typing import Any

from store import audit
from store.db import Database
from tests.support.factories import add_adapter, add_lesson, go_live


def last(db: Database, count: int = 1) -> list[tuple[str, str, str]]:
    with db.read() as session:
        rows = audit.page(session, None, count)
        return [(row.actor, row.action, row.subject) for row in rows]


def test_starting_cancelling_approving_and_rolling_back_are_in_the_audit_log(
    db: Database, run: Any
) -> None:
    with db.begin() as session:
        add_lesson(session, "We open at nine.", "default")
        live, candidate = go_live(session, "default"), add_adapter(session, "default").name
    started = run("train", "now").stdout.strip()
    assert last(db) == [("operator", "run started", started)]
    run("train", "cancel", started)
    assert last(db) == [("operator", "run cancelled", started)]
    run("rollout", "promote", candidate)
    assert last(db) == [("operator", "approved", candidate)]
    run("rollback", "--yes")
    assert last(db) == [("operator", "rollback", live)]


def test_every_change_by_compile_is_in_the_audit_log(
    db: Database, run: Any, tmp_path: Path
) -> None:
    for name, text in {
        "prompt.md": "You are kind.",
        "seeds.jsonl": '{"prompt": "Hi"}',
        "anchors.jsonl": '{"prompt": "Who?", "expect": {"contains": "kind"}}',
    }.items():
        (tmp_path / name).write_text(text)
    files = ("--seeds", f"{tmp_path}/seeds.jsonl", "--anchors", f"{tmp_path}/anchors.jsonl")

    run("compile", f"{tmp_path}/prompt.md", "--namespace", "shop", *files)

    assert {who for who, _, _ in last(db, 5)} == {"operator"}
    assert [action for _, action, _ in last(db, 5)] == [
        "run started",
        "anchors replaced",
        "seeds replaced",
        "prompt registered",
        "namespace added",
    ]
