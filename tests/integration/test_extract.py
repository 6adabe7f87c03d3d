"""From conversations to lessons, on real databases and over real HTTP to a fake engine."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.engine.client import VllmEngine
from agent.gateway.inflight import Inflight
from agent.learning import extract
from agent.work import Work
from config.settings import load
from store import conversations, feedback, interactions, lessons, namespaces
from store.db import Database
from store.feedback import NewFeedback
from store.schema import LessonStatus, Trust
from tests.factories import NOW, later, record, user
from tests.fake_vllm import FakeVllm

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


class Shop:
    """Conversations of a namespace, and the job that reads them."""

    def __init__(self, work: Work, fake: FakeVllm) -> None:
        self.work = work
        self.fake = fake

    def ask(self, question: str, conversation: str = "c", **values: Any) -> str:
        """A turn; its interaction."""
        with self.work.db.begin() as session:
            made = record(session, conversation=conversation, messages=[user(question)], **values)
        return made.id

    def correct(self, interaction: str, **values: Any) -> None:
        """The operator's feedback."""
        given: dict[str, Any] = {
            "id": None,
            "target_id": interaction,
            "name": "feedback",
            "value": {},
            "comment": None,
            "demonstration": None,
            "tags": {},
            "principal": "local",
            "trust": Trust.OPERATOR,
        }
        with self.work.db.begin() as session:
            feedback.add(session, "shop", NewFeedback(**given | values), NOW)

    async def read(self, interaction: str) -> None:
        """Run the job of the interaction's conversation."""
        with self.work.db.read() as session:
            row = interactions.get(session, interaction)
            assert row
        await extract.run(self.work, {"namespace": "shop", "conversation": row.conversation})

    def known(self, *statuses: LessonStatus) -> list[str]:
        with self.work.db.read() as session:
            return [lessons.text(one) for one in lessons.listing(session, "shop", statuses)]

    def move(self, status: LessonStatus) -> None:
        """Move every lesson there is."""
        with self.work.db.begin() as session:
            for lesson in lessons.listing(session, "shop"):
                lessons.set_status(session, lesson, status)


@pytest.fixture
async def shop(any_db: Database) -> AsyncIterator[Shop]:
    with any_db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    async with FakeVllm(model="small") as fake:
        engine = VllmEngine([fake.url])
        yield Shop(Work(load(environ={}), any_db, engine, "small", Inflight()), fake)
        await engine.close()


FACTS = [
    "Lamps cost 15 euros.",
    "Wool is washed cold.",
    "The shop is in Tartu.",
    "Parcels leave on Mondays.",
    "Gift cards never expire.",
]


async def test_every_demonstration_of_a_conversation_becomes_a_lesson(shop: Shop) -> None:
    for fact in FACTS:
        asked = shop.ask(f"Is it true: {fact}")
        shop.correct(asked, demonstration=fact)
    await shop.read(asked)
    assert shop.known(LessonStatus.ACTIVE) == FACTS


async def test_of_other_corrections_the_newest_are_read_and_no_more_than_the_setting_says(
    shop: Shop,
) -> None:
    shop.fake.answer_with(lambda body: body["prompt"].split("Reply: ")[-1].split("\n")[0])
    for fact in FACTS:
        asked = shop.ask("And this?")
        shop.correct(asked, comment=fact)
    await shop.read(asked)
    most = shop.work.settings.learning.max_per_conversation
    assert shop.known() == FACTS[-most:]


async def test_what_has_taught_a_lesson_is_not_asked_about_again(shop: Shop) -> None:
    asked = shop.ask("What does a lamp cost?")
    shop.correct(asked, demonstration="Lamps cost 15 euros.")
    await shop.read(asked)
    count = len(shop.fake.history)
    shop.fake.answer_with(lambda _: "Lamps cost exactly 15 euros.")
    await shop.read(asked)
    assert len(shop.fake.history) == count
    assert len(shop.known()) == 1


@pytest.mark.parametrize("status", [LessonStatus.RETIRED, LessonStatus.QUARANTINED])
async def test_a_lesson_that_was_taken_out_stays_out_whatever_else_is_said_there(
    shop: Shop, status: LessonStatus
) -> None:
    asked = shop.ask("What does a lamp cost?")
    shop.correct(asked, demonstration="Lamps cost 15 euros.")
    await shop.read(asked)
    shop.move(status)
    shop.correct(asked, name="thumbs", value={"value": False})
    await shop.read(asked)
    assert shop.known() == shop.known(status) == ["Lamps cost 15 euros."]


@pytest.mark.parametrize("status", [LessonStatus.RETIRED, LessonStatus.QUARANTINED])
async def test_what_was_taken_out_only_the_operator_brings_back(
    shop: Shop, status: LessonStatus
) -> None:
    first = shop.ask("What does a lamp cost?")
    shop.correct(first, demonstration="Lamps cost 15 euros.")
    await shop.read(first)
    shop.move(status)
    for number, name in enumerate(["ann", "bob", "cat"]):
        again = shop.ask("What does a lamp cost?", conversation=f"u{number}")
        said = {"demonstration": "Lamps cost 15 euros.", "principal": name, "trust": Trust.USER}
        shop.correct(again, **said)
        await shop.read(again)
    assert shop.known() == shop.known(status)
    shop.correct(again, demonstration="Lamps cost 15 euros.")
    await shop.read(again)
    assert shop.known(LessonStatus.ACTIVE) == ["Lamps cost 15 euros."]


async def test_after_a_reading_nothing_is_unread(shop: Shop) -> None:
    asked = shop.ask("What does a lamp cost?")
    shop.correct(asked, comment="Thanks.")
    await shop.read(asked)
    with shop.work.db.read() as session:
        assert conversations.unread(session, later(10_000_000), 1) == []
