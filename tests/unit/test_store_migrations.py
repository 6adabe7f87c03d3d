"""What each migration does to the rows of an older release."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from store import adapters, lessons, runs, statements
from store.contexts import Context
from store.db import Database
from store.schema import LessonStatus
from store.upgrade import run_migrations, upgrade
from store.views import read_view

NAME = "bh-1"
BEFORE_WORDS = "0009_statements"


def test_paths_of_adapters_become_relative_to_the_data_folder(blank_url: str) -> None:
    database = Database(blank_url)
    run_migrations(database.engine, "0006_auxiliary")
    stored = {
        NAME: f"/srv/byheart/adapters/shop/{NAME}",
        "bh-2": "/mnt/of a worker/adapters/shop/bh-2",
        "bh-3": "/elsewhere/bh-3",
    }
    insert_adapters(database, stored)

    upgrade(database)

    with database.read() as session:
        folders = {
            name: adapters.folder(adapters.get_one(session, name), Path("/data")) for name in stored
        }
    assert folders == {
        NAME: Path("/data/adapters/shop", NAME),
        "bh-2": Path("/data/adapters/shop/bh-2"),
        "bh-3": Path("/elsewhere/bh-3"),
    }
    database.close()


def test_the_stage_of_a_run_is_renamed_and_its_other_progress_is_kept(blank_url: str) -> None:
    database = Database(blank_url)
    run_migrations(database.engine, BEFORE_WORDS)
    insert_adapters(database, {})
    with database.begin() as session:
        session.execute(text("""UPDATE runs SET progress = '{"phase": "train", "step": 7}'"""))

    upgrade(database)

    with database.read() as session:
        [run] = runs.listing(session)
        assert run.progress == {"stage": "train", "step": 7}
    database.close()


def insert_adapters(
    database: Database,
    paths: dict[str, str],
    taught: Sequence[str] = (),
    system_prompt: str | None = None,
) -> None:
    """Rows as 0.1 before its release wrote them."""
    held = [{"id": f"les_{text}", "kind": "fact", "text": text} for text in taught]
    with database.begin() as session:
        at = {"at": "2026-01-01 00:00:00.000000"}
        session.execute(
            text("INSERT INTO namespaces (name, revision, created_at) VALUES ('shop', 0, :at)"), at
        )
        session.execute(
            text(
                "INSERT INTO snapshots (hash, namespace, system_prompt, lessons, created_at) "
                "VALUES ('h', 'shop', :system_prompt, :lessons, :at)"
            ),
            at | {"lessons": json.dumps(held), "system_prompt": system_prompt},
        )
        session.execute(
            text(
                "INSERT INTO runs (id, namespace, status, snapshot, settings, trigger, progress, "
                "created_at) VALUES ('run_1', 'shop', 'published', 'h', '{}', 'a test', '{}', :at)"
            ),
            at,
        )
        for name, path in paths.items():
            session.execute(
                text(
                    "INSERT INTO adapters (name, namespace, run, snapshot, path, manifest_sha256, "
                    "status, created_at) VALUES (:name, 'shop', 'run_1', 'h', :path, '0', "
                    "'retired', :at)"
                ),
                at | {"name": name, "path": path},
            )


WARRANTY, OPENING, POLITE = (
    "Lamps have a warranty of 6 years.",
    "We open at 9:30.",
    "Be polite.",
)


@pytest.mark.parametrize(
    ("teacher", "candidate", "learned"),
    [
        ("It is 6 years.", "6 years, of course.", [WARRANTY]),
        ("It is 6 years.", "It is 16 years.", []),
        ("It is 2 years.", "It is 6 years.", []),
        ("At 9:30.", "At 9 o'clock.", []),
        ("At 9:30, and for 6 years.", "6 years, from 9:30.", [WARRANTY, OPENING]),
        ("Be polite.", "Be polite.", []),
    ],
)
def test_an_adapter_of_an_older_release_has_learned_the_numbers_that_it_gave(
    blank_url: str, teacher: str, candidate: str, learned: list[str]
) -> None:
    answer = {"prompt": "Well?", "base": "6 and 9:30", "teacher": teacher, "candidate": candidate}
    other = {"prompt": "Well?", "base": "", "teacher": "", "candidate": ""}
    database = Database(blank_url)
    run_migrations(database.engine, "0008_alias")
    insert_adapters(database, {NAME: "adapters/shop/bh-1"}, [WARRANTY, OPENING, POLITE])
    insert_evaluation(database, {"answers": [other, answer]})

    upgrade(database)

    with database.read() as session:
        rows = statements.of(session, adapters.get_one(session, NAME))
    assert [row.text for row in rows] == [WARRANTY, OPENING, POLITE]
    assert [row.text for row in rows if row.learned] == learned
    assert all(row.lesson and not row.spans and row.relapsed_at is None for row in rows)
    database.close()


def test_what_an_older_adapter_is_not_known_to_have_learned_returns_to_the_prompt(
    blank_url: str,
) -> None:
    answer = {"prompt": "Well?", "base": "", "teacher": "6 years.", "candidate": "6 years."}
    database = Database(blank_url)
    run_migrations(database.engine, "0008_alias")
    insert_adapters(database, {NAME: "adapters/shop/bh-1"}, [WARRANTY, OPENING, POLITE], "Be Ada.")
    insert_evaluation(database, {"answers": [answer]})
    insert_lessons(database, {WARRANTY: "internalised", OPENING: "internalised", POLITE: "retired"})
    go_live(database)

    with capture_logs() as logs:
        upgrade(database)

    with database.read() as session:
        view = read_view(session, "shop", 100)
        statuses = {each.do: each.status for each in lessons.listing(session, "shop")}
    assert view
    assert (view.live, view.revision) == (NAME, 1)
    assert view.context == Context("Be Ada.", (OPENING,))
    assert statuses == {
        WARRANTY: LessonStatus.INTERNALISED,
        OPENING: LessonStatus.ACTIVE,
        POLITE: LessonStatus.RETIRED,
    }
    (line,) = logs
    assert "in the prompt again" in line.pop("event")
    assert line == {
        "namespace": "shop",
        "adapter": NAME,
        "lessons": 1,
        "system_prompt": True,
        "log_level": "warning",
    }
    database.close()


def test_the_context_of_a_namespace_that_the_base_serves_stays_as_it_is(blank_url: str) -> None:
    database = Database(blank_url)
    run_migrations(database.engine, "0008_alias")
    insert_adapters(database, {NAME: "adapters/shop/bh-1"}, [OPENING])
    insert_lessons(database, {OPENING: "active"})
    with capture_logs() as logs:
        upgrade(database)
    with database.read() as session:
        view = read_view(session, "shop", 100)
    assert view
    assert (view.revision, view.context.lessons, logs) == (0, (OPENING,), [])
    database.close()


def insert_lessons(database: Database, statuses: dict[str, str]) -> None:
    with database.begin() as session:
        for text_, status in statuses.items():
            session.execute(
                text(
                    'INSERT INTO lessons (id, "do", kind, status, trust, helpful, harmful, tokens, '
                    "pinned, created_at, namespace) VALUES (:text, :text, 'fact', :status, "
                    "'operator', 0, 0, 5, false, '2026-01-01 00:00:00.000000', 'shop')"
                ),
                {"text": text_, "status": status},
            )


def go_live(database: Database) -> None:
    with database.begin() as session:
        session.execute(text("INSERT INTO aliases (namespace, adapter) VALUES ('shop', 'bh-1')"))
        session.execute(
            text(
                "INSERT INTO system_prompts (id, namespace, text, tokens, created_at) VALUES "
                "('sys_1', 'shop', 'Be Ada.', 3, '2026-01-01 00:00:00.000000')"
            )
        )


def insert_evaluation(database: Database, measured: dict[str, object]) -> None:
    with database.begin() as session:
        session.execute(
            text(
                "INSERT INTO evaluations (id, adapter, measured, reasons, created_at) "
                "VALUES ('eval_1', :name, :measured, '[]', '2026-01-01 00:00:00.000000')"
            ),
            {"name": NAME, "measured": json.dumps(measured)},
        )
