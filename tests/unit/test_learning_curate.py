"""Saving lessons concurrently."""

import threading

from agent.learning import curate
from agent.learning.curate import SizedLesson
from agent.learning.extractors import ProposedLesson
from config.sections import Learning
from store import lessons, namespaces
from store.db import Database, Session
from store.lessons import Support
from store.schema import LessonKind, LessonStatus, Trust
from tests.support.factories import NOW, record

SAID = "Lamps cost 15 euros."


def keep(session: Session, interaction: str, principal: str) -> None:
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
