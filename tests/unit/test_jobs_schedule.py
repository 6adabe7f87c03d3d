"""When the scheduler starts runs, fails them, and enqueues retention."""

import itertools
import threading
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent.jobs.schedule import RETAIN, tick
from agent.training.plan import UNLEARN_RETRY_AFTER, open_run, untried_lessons
from config.settings import Settings, load
from store import (
    adapters,
    jobs,
    lessons,
    namespaces,
    relapses,
    runs,
    snapshots,
    statements,
)
from store.db import Database, Session
from store.models import Lesson
from store.schema import JobStatus, LessonStatus, RunStatus
from tests.support.factories import NOW, add_lesson, go_live, later
from tests.support.until import until_sync

MOST = 100
LONG_AFTER = later(10**6)


@pytest.fixture
def eager(tmp_path: Path) -> Settings:
    distill = {"settle_s": 0, "min_new_lessons": 1, "max_lesson_tokens": MOST}
    return load(environ={}, overrides={"store": {"data_dir": tmp_path}, "distill": distill})


def runs_after_tick(db: Database, eager: Settings) -> list[str]:
    """The runs after a look at what is due; one that was opened fails at once."""
    tick(db, eager, LONG_AFTER)
    with db.begin() as session:
        for run in runs.all_unfinished(session):
            runs.finish(session, run.id, RunStatus.FAILED, "No luck.", NOW)
        return [run.id for run in runs.listing(session)]


def two_lessons(session: Session) -> Lesson:
    """A namespace with a lesson to take out, which is returned, and one to keep."""
    namespaces.ensure(session, "shop", NOW)
    add_lesson(session, "Open at 9.")
    return add_lesson(session, "Refunds: never.")


def learned(session: Session, missed: Collection[str] = ()) -> None:
    """A run over all there is has ended, and its adapter serves."""
    go_live(session, missed=missed)
    for run in runs.all_unfinished(session):
        runs.cancel(session, run.id, NOW)


def test_a_tick_retires_lessons_that_have_expired(db: Database, eager: Settings) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        lesson = add_lesson(session, "The sale ends today.", expires_at=NOW).id
    runs_after_tick(db, eager)
    with db.read() as session:
        assert lessons.get(session, lesson).status is LessonStatus.RETIRED


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.integers(1, MOST + 20), max_size=6), max_size=4))
def test_no_automatic_run_repeats_the_lessons_of_the_last_one(
    db: Database, eager: Settings, batches: list[list[int]]
) -> None:
    with db.begin() as session:
        namespace = f"shop-{len(namespaces.names(session))}"
        namespaces.ensure(session, namespace, NOW)
    for number, sizes in enumerate(batches):
        with db.begin() as session:
            for place, tokens in enumerate(sizes):
                add_lesson(session, f"Lesson {number} {place}.", namespace, tokens=tokens)
        settled = runs_after_tick(db, eager)
        assert runs_after_tick(db, eager) == settled
    with db.read() as session:
        hashes = [run.snapshot for run in runs.listing(session, namespace)]
        assert untried_lessons(session, namespace, MOST) == []
    assert all(one != other for one, other in itertools.pairwise(hashes))


def test_a_run_learns_more_lessons_than_fit_into_a_prompt(db: Database, eager: Settings) -> None:
    roomy = eager.model_copy(
        update={"distill": eager.distill.model_copy(update={"max_lesson_tokens": 1024})}
    )
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        for number in range(40):
            add_lesson(session, f"Fact number {number}.", tokens=16)
        run = runs.get(session, open_run(session, "shop", roomy, "a test", NOW))
        assert run is not None
        snapshot = snapshots.get(session, run.snapshot, "shop")
        assert snapshot is not None
        assert len(snapshot.lessons) == 40
        assert len(lessons.fit(lessons.in_use(session, "shop"), roomy.learning.token_budget)) == 32


def test_retiring_an_internalised_lesson_starts_one_run_without_it(
    db: Database, eager: Settings
) -> None:
    with db.begin() as session:
        poisoned = two_lessons(session)
        learned(session)
        lessons.set_status(session, poisoned, LessonStatus.RETIRED)

    opened = runs_after_tick(db, eager)

    assert len(opened) == 2
    assert runs_after_tick(db, eager) == opened  # it failed, and is not tried again at once
    with db.read() as session:
        newest = runs.listing(session, "shop")[0]
        snapshot = snapshots.get(session, newest.snapshot, "shop")
        assert snapshot is not None
        assert [lesson["text"] for lesson in snapshot.lessons] == ["Open at 9."]


def test_a_failed_unlearning_run_is_repeated_after_a_day(db: Database, eager: Settings) -> None:
    with db.begin() as session:
        poisoned = two_lessons(session)
        learned(session)
        lessons.set_status(session, poisoned, LessonStatus.RETIRED)
    opened = runs_after_tick(db, eager)

    tick(db, eager, LONG_AFTER + UNLEARN_RETRY_AFTER * 2)

    with db.read() as session:
        assert len(runs.listing(session)) == len(opened) + 1


def test_retiring_the_only_lesson_starts_no_run(db: Database, eager: Settings) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        only = add_lesson(session, "Refunds: never.")
        learned(session)
        lessons.set_status(session, only, LessonStatus.RETIRED)

    assert len(runs_after_tick(db, eager)) == 1


def test_lessons_whose_last_run_included_a_retired_one_count_as_untried(
    db: Database, eager: Settings
) -> None:
    with db.begin() as session:
        poisoned = two_lessons(session)
    assert len(runs_after_tick(db, eager)) == 1
    with db.begin() as session:
        lessons.set_status(session, lessons.get(session, poisoned.id), LessonStatus.RETIRED)

    assert len(runs_after_tick(db, eager)) == 2


def relapse(session: Session, text: str, seconds: float) -> None:
    """An answer of the live adapter has shown that it does not know a lesson."""
    live = adapters.live(session, "shop")
    assert live
    rows = [row for row in statements.of(session, live) if row.text == text]
    assert relapses.record(session, "shop", rows, "Corrected.", None, later(seconds))


def test_a_lesson_that_the_last_run_did_not_learn_starts_no_run(
    db: Database, eager: Settings
) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        lesson = add_lesson(session, "Open at 9.")
        learned(session, missed=["Open at 9."])
        assert lesson.status is LessonStatus.ACTIVE
        opened = [run.id for run in runs.listing(session)]
    assert runs_after_tick(db, eager) == opened


def test_a_relapse_since_the_last_run_starts_a_run_once(db: Database, eager: Settings) -> None:
    with db.begin() as session:
        two_lessons(session)
        learned(session)
        relapse(session, "Open at 9.", seconds=1)
    opened = runs_after_tick(db, eager)
    assert len(opened) == 2
    with db.read() as session:
        newest = runs.listing(session, "shop")[0]
        assert newest.trigger == "1 new or relapsed lessons"
        snapshot = snapshots.get(session, newest.snapshot, "shop")
    assert snapshot
    assert {each["text"] for each in snapshot.lessons} == {"Open at 9.", "Refunds: never."}
    assert runs_after_tick(db, eager) == opened  # tried, and relapsed before that


def test_a_lesson_with_three_relapses_starts_no_run(db: Database) -> None:
    with db.begin() as session:
        two_lessons(session)
        for _ in range(statements.RELAPSE_LIMIT):
            learned(session)
            relapse(session, "Open at 9.", seconds=1)
        assert untried_lessons(session, "shop", MOST) == []
        lessons.set_status(session, lessons.in_use(session, "shop")[1], LessonStatus.RETIRED)
        # A last run that had the retired lesson counts for nothing.
        assert untried_lessons(session, "shop", MOST) == []


def killed(session: Session, run: str) -> None:
    """The run's process dies as often as a job may be claimed."""
    while jobs.claim(session, ["train"], LONG_AFTER, lease_s=0):
        pass
    last = jobs.latest(session, f"train {run}")
    assert last
    assert last.status is JobStatus.FAILED


@pytest.mark.parametrize("trains", [True, False])
def test_a_run_whose_job_failed_continues_while_it_makes_progress(
    db: Database, eager: Settings, trains: bool
) -> None:
    ends = []
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        add_lesson(session, "Open at 9.")
        run = open_run(session, "shop", eager, "a test", NOW)
        runs.start(session, run, NOW)
    for step in (20, 40, 40):
        with db.begin() as session:
            if trains:
                runs.progress(session, run, {"stage": "train", runs.TRAINED: step})
            # However the last attempt ended, the one that trained counts.
            runs.progress(session, run, {"stage": "load the model", "step": step})
            killed(session, run)
        tick(db, eager, LONG_AFTER)
        with db.read() as session:
            ends.append(runs.unfinished(session, "shop") is None)
        if ends[-1]:
            break
    assert ends == ([False, False, True] if trains else [True])


def test_ticks_of_two_processes_open_one_run(any_db: Database, eager: Settings) -> None:
    db = any_db
    with db.begin() as session:
        namespaces.ensure(session, "race", NOW)
        add_lesson(session, "Open until 5.", "race")
    other = threading.Thread(target=tick, args=(db, eager, LONG_AFTER))
    with db.begin() as session:
        namespaces.lock(session, "race")
        other.start()
        until_waiting(db)
        open_run(session, "race", eager, "the first tick", NOW)
    other.join()
    with db.read() as session:
        assert [run.trigger for run in runs.listing(session, "race")] == ["the first tick"]


def until_waiting(db: Database) -> None:
    """Until a session waits for a lock that another one holds; with SQLite it does so at once."""
    if db.engine.dialect.name == "sqlite":
        return
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def is_waiting() -> bool:
        with db.read() as session:
            return bool(session.scalar(waiting))

    until_sync(is_waiting)


def test_retention_runs_hourly_if_a_retention_period_is_set(db: Database, eager: Settings) -> None:
    keeping = eager.model_copy(update={"store": eager.store.model_copy(update={"texts_days": 30})})
    taken = []
    for seconds, chosen in ((0, eager), (1, keeping), (2, keeping), (3602, keeping)):
        tick(db, chosen, later(seconds))
        with db.begin() as session:
            claim = jobs.claim(session, [RETAIN], later(seconds), 30)
            if claim:
                jobs.finish(session, claim, later(seconds))
        taken.append(claim is not None)
    assert taken == [False, True, False, True]
