"""`byheart why` and `savings`, as tables and as JSON."""

import json
from typing import Any

from agent.cli.errors import InputError
from store import lessons
from store.db import Database
from store.lessons import Support
from store.schema import LessonKind, Trust
from tests.support.factories import NOW, record


def test_why_shows_the_version_and_the_lessons_of_an_answer(db: Database, run: Any) -> None:
    with db.begin() as session:
        one = record(session, namespace="default", version="bh-1", tokens_saved=90)
        support = Support(one.id, None, "Lamps cost 15.", "ann", Trust.USER)
        lesson = lessons.add(
            session,
            "default",
            kind=LessonKind.FACT,
            when=None,
            do="Lamps cost [15].",
            trust=Trust.USER,
            tokens=5,
            support=[support],
            now=NOW,
        )
        lesson_id = lesson.id
    said = json.loads(run("why", one.id, "-o", "json").stdout)
    assert (said["version"], said["tokens_saved"], said["system_prompt"]) == ("bh-1", 90, None)
    assert [each["id"] for each in said["learned"]] == [lesson_id]
    assert "Lamps cost [15]." in run("why", one.id).stdout


def test_an_unknown_interaction_is_an_input_error(run: Any) -> None:
    assert isinstance(run("why", "int_0").exception, InputError)


def test_savings_are_listed_by_version(db: Database, run: Any) -> None:
    assert "No requests yet" in run("savings").stdout
    with db.begin() as session:
        for version, saved in (("base", 0), ("bh-1", 90), ("bh-1", 110)):
            record(session, namespace="default", version=version, tokens_saved=saved)
    rows = json.loads(run("savings", "-o", "json").stdout)
    assert [(row["version"], row["tokens_saved"]) for row in rows] == [("base", 0), ("bh-1", 200)]
    assert run("savings", "-n", "nobody").exit_code != 0
