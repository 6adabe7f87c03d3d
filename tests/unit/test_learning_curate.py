"""Saving lessons concurrently."""

import threading

from agent.learning import curate
from agent.learning.curate import SizedLesson
from agent.learning.extractors import ProposedLesson
from config.sections import Learning
from store import adapters, lessons, namespaces, statements
from store.db import Database, Session
from store.lessons import Support
from store.schema import LessonKind, LessonStatus, Trust
from tests.support.factories import NOW, add_lesson, go_live, record

SAID = "Lamps cost 15 euros."


def keep(session: Session, interaction: str, principal: str = "ann") -> None:
    support = Support(interaction, None, SAID, principal, Trust.USER)
    stated = [SizedLesson(ProposedLesson(kind=LessonKind.FACT, do=SAID), 6)]
    curate.save(session, "shop", support, stated, Learning(), NOW)


def test_two_users_who_say_the_same_concurrently_support_one_lesson(any_db: Database) -> None:
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
        one, other = (record(session, conversation=name).id for name in ("c", "d"))

    def second() -> None:
        with any_db.begin() as session:
            keep(session, other, "bob")

    meanwhile = threading.Thread(target=second)
    with any_db.begin() as session:
        keep(session, one, "ann")
        meanwhile.start()
        meanwhile.join(0.5)
        assert meanwhile.is_alive()
    meanwhile.join()
    with any_db.read() as session:
        [lesson] = lessons.listing(session, "shop")
        assert lessons.principals(session, lesson) == {"ann", "bob"}
        assert lesson.status is LessonStatus.ACTIVE


def test_a_correction_that_repeats_what_the_live_adapter_knows_is_a_relapse(shop: Database) -> None:
    with shop.begin() as session:
        lesson = add_lesson(session, SAID)
        other = add_lesson(session, "Chairs cost 15 euros.")
        live = go_live(session)
        for version in ("base", "bh_older"):
            keep(session, record(session, version=version).id)
        assert lesson.status is LessonStatus.INTERNALISED
        answer = record(session, version=live).id
        keep(session, answer)
        assert (lesson.status, other.status) == (LessonStatus.ACTIVE, LessonStatus.INTERNALISED)
        row, _ = statements.of(session, adapters.get_one(session, live))
        assert (row.relapse_interaction, row.relapse_cause) == (answer, "ann corrected the answer.")
        go_live(session)
        keep(session, answer)
        assert lesson.status is LessonStatus.INTERNALISED, "it is the same correction"
