"""`byheart lessons`: listing, approving, adding, editing and retiring."""

import json
from typing import Any

import pytest

from store import audit, lessons
from store.db import Database
from store.schema import LessonStatus
from tests.support.factories import add_lesson, go_live


def candidates(db: Database, *texts: str) -> list[str]:
    with db.begin() as session:
        status = LessonStatus.CANDIDATE
        return [add_lesson(session, text, "default", status=status).id for text in texts]


def statuses(db: Database) -> list[LessonStatus]:
    with db.read() as session:
        return [lesson.status for lesson in lessons.listing(session, "default")]


def test_ls_and_status_show_waiting_lessons_and_how_to_approve_them(db: Database, run: Any) -> None:
    assert "approve" not in run("lessons", "ls").stdout
    candidates(db, "Lamps cost 15.", "Wool is washed cold.")
    for verb in (("lessons", "ls"), ("status",)):
        assert "byheart lessons approve ID..." in run(*verb).stdout
    [row] = json.loads(run("status", "-o", "json").stdout)
    assert row["lessons_waiting"] == 2


def test_approving_several_lessons_approves_all_or_none(db: Database, run: Any) -> None:
    waiting = candidates(db, "Lamps cost 15.", "Wool is washed cold.")
    assert run("lessons", "approve", *waiting, "les_unknown").exit_code != 0
    assert set(statuses(db)) == {LessonStatus.CANDIDATE}
    assert run("lessons", "approve", *waiting).exit_code == 0
    assert set(statuses(db)) == {LessonStatus.ACTIVE}
    assert run("lessons", "retire", *waiting).exit_code == 0
    assert set(statuses(db)) == {LessonStatus.RETIRED}


def test_a_lesson_above_the_token_budget_is_rejected_with_the_remedy(
    db: Database, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.engine.tokens.count", lambda _, text: len(text.split()))
    assert run("lessons", "add", "word " * 512).exit_code == 0
    refused = run("lessons", "add", "word " * 513)
    assert refused.exit_code != 0
    assert len(statuses(db)) == 1
    [lesson] = json.loads(run("lessons", "ls", "-o", "json").stdout)
    assert run("lessons", "edit", lesson["id"], "word " * 513).exit_code != 0
    assert statuses(db) == [LessonStatus.ACTIVE]


def test_a_duplicate_lesson_is_not_added(db: Database, run: Any) -> None:
    assert run("lessons", "add", "Lamps cost 15.").exit_code == 0
    again = run("lessons", "add", "Lamps cost 15.")
    assert "already says this (active)" in str(again.exception)
    assert run("lessons", "add", "Lamps cost 16.").exit_code == 0
    assert statuses(db) == [LessonStatus.ACTIVE, LessonStatus.ACTIVE]


def test_what_the_adapter_should_know_returns_to_the_prompt_when_it_is_repeated(
    db: Database, run: Any
) -> None:
    with db.begin() as session:
        known = add_lesson(session, "Lamps cost 15.", "default").id
        go_live(session, "default")
    again = run("lessons", "add", "Lamps cost 15.", "--pin")
    assert (again.exit_code, again.stdout.strip()) == (0, known)
    assert "in the prompt again" in again.stderr
    [row] = json.loads(run("lessons", "ls", "-o", "json").stdout)
    assert (row["status"], row["pinned"]) == ("active", True)
    assert run("lessons", "add", "Lamps cost 15.").exit_code != 0
    with db.read() as session:
        assert [row.action for row in audit.page(session, None, 2)] == [
            "lesson pinned",
            "lesson repeated",
        ]


def test_text_that_looks_like_markup_is_printed_verbatim(db: Database, run: Any) -> None:
    candidates(db, "The closing tag is [/INST] for [bold] models.")
    assert "[/INST] for [bold] models." in run("lessons", "ls").stdout


def test_an_edit_with_a_blank_text_is_rejected(db: Database, run: Any) -> None:
    [lesson] = candidates(db, "Lamps cost 15.")
    assert "TEXT must not be blank" in str(run("lessons", "edit", lesson, " ").exception)
    assert statuses(db) == [LessonStatus.CANDIDATE]


def test_control_sequences_in_a_lesson_are_not_printed(db: Database, run: Any) -> None:
    [lesson] = candidates(db, "Lamps \x1b]0;owned\x07\x1b[31mcost 15.")
    for verb in (("ls",), ("show", lesson)):
        assert "\x1b]0" not in run("lessons", *verb).stdout


def test_ls_shows_whether_a_lesson_is_pinned(run: Any) -> None:
    lesson = run("lessons", "add", "Lamps cost 15.", "--pin").stdout.strip()
    [row] = json.loads(run("lessons", "ls", "-o", "json").stdout)
    assert row["pinned"] is True
    assert run("lessons", "edit", lesson, "--no-pin").stdout.strip() == lesson
    [row] = json.loads(run("lessons", "ls", "-o", "json").stdout)
    assert row["pinned"] is False


def test_an_edited_lesson_keeps_its_pin_and_expiry(run: Any) -> None:
    old = run("lessons", "add", "Lamps cost 15.", "--pin", "--expires", "2999-01-31").stdout.strip()
    new = run("lessons", "edit", old, "Lamps cost 16.").stdout.strip()
    shown = json.loads(run("lessons", "show", new, "-o", "json").stdout)
    assert (shown["pinned"], shown["expires_at"][:10]) == (True, "2999-01-31")
    run("lessons", "edit", new, "--expires", "never")
    assert json.loads(run("lessons", "show", new, "-o", "json").stdout)["expires_at"] is None


@pytest.mark.parametrize("expires", ["2001-01-31", "soon"])
def test_an_expiry_that_is_past_or_not_a_date_is_rejected(
    db: Database, run: Any, expires: str
) -> None:
    assert run("lessons", "add", "Lamps cost 15.", "--expires", expires).exit_code != 0
    assert statuses(db) == []
