"""Pinned lessons and lessons that expire, in prompts and runs."""

from datetime import timedelta

from store import audit, lesson_options, lessons, snapshots
from store.db import Database
from store.schema import LessonStatus
from store.views import read_view
from tests.support.factories import NOW, add_lesson, go_live, later

SOON = NOW + timedelta(hours=1)


def test_pinned_lessons_come_first_and_fill_the_budget_before_newer_ones(shop: Database) -> None:
    with shop.begin() as session:
        old, new = add_lesson(session, "Old."), add_lesson(session, "New.")
        assert read_view(session, "shop", new.tokens).context.lessons == ("New.",)

        lesson_options.set_pinned(session, old, True)

        assert read_view(session, "shop", 100).context.lessons == ("Old.", "New.")
        assert read_view(session, "shop", old.tokens).context.lessons == ("Old.",)
        assert [one.id for one in snapshots.select_lessons(session, "shop", old.tokens)] == [old.id]


def test_pinning_and_expiry_increment_the_revision(shop: Database) -> None:
    with shop.begin() as session:
        lesson = add_lesson(session, "Lamps cost 15.", expires_at=SOON)
        before = read_view(session, "shop", 100).revision
        lesson_options.set_pinned(session, lesson, True)
        pinned = read_view(session, "shop", 100).revision
        lesson_options.retire_expired(session, "shop", SOON)
        assert before < pinned < read_view(session, "shop", 100).revision


def test_an_expired_lesson_is_retired_once_and_others_stay(shop: Database) -> None:
    with shop.begin() as session:
        expired = add_lesson(session, "The sale ends today.", expires_at=SOON)
        add_lesson(session, "Lamps cost 15.", expires_at=SOON + timedelta(seconds=1))
        add_lesson(session, "Wool is washed cold.")

        assert lesson_options.retire_expired(session, "shop", NOW) == []
        assert lesson_options.retire_expired(session, "shop", SOON) == [expired]
        assert lesson_options.retire_expired(session, "shop", SOON) == []

        assert expired.status is LessonStatus.RETIRED
        assert read_view(session, "shop", 100).context.lessons == (
            "Lamps cost 15.",
            "Wool is washed cold.",
        )
        [entry] = audit.page(session, None, 1)
        assert (entry.actor, entry.subject) == (audit.BYHEART, expired.id)


def test_an_expired_internalised_lesson_is_to_be_unlearned(shop: Database) -> None:
    with shop.begin() as session:
        lesson = add_lesson(session, "The sale ends today.")
        go_live(session)
        lesson_options.set_expiry(session, lesson, SOON)
        lesson_options.retire_expired(session, "shop", later(10_000))
        snapshot = snapshots.take(session, "shop", 100, NOW)
        assert lessons.snapshot_texts(snapshot.lessons) == frozenset()
        assert lesson.status is LessonStatus.RETIRED
