"""What is corrected over HTTP is in the prompt of the very next request."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from store import adapters, interactions, prompts, rollouts, statements
from store.db import Database
from tests.support import running_gateway
from tests.support.crash_gateway import Place, running
from tests.support.factories import NOW, add_lesson, go_live
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import RunningGateway
from tests.support.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

RETURNS, TEAM = "Returns are accepted within 45 days.", "The Team plan costs 31 euros."
BRIEF = "Be brief."
TOKENS = {RETURNS: 6, TEAM: 6, BRIEF: 2}
"""By words, as in the tests' gateway."""
QUESTION = "How long can I return a lamp?"


class Asker:
    """Asks the live version, and corrects its answers."""

    def __init__(self, url: str, fake: FakeVllm) -> None:
        self.url = url
        self.fake = fake

    async def ask(self, answer: str = "Within 30 days.") -> tuple[str, set[str], int]:
        """Return the interaction, the statements in its prompt, and the tokens saved."""
        self.fake.enqueue(answer)
        body = {"model": "small", "messages": [{"role": "user", "content": QUESTION}]}
        async with (
            aiohttp.ClientSession(self.url) as http,
            http.post("/v1/chat/completions", json=body) as response,
        ):
            assert response.status == 200, await response.text()
            headers = response.headers
        first = self.fake.history[-1]["messages"][0]
        system = first["content"] if first["role"] == "system" else ""
        seen = {statement for statement in TOKENS if statement in system}
        return headers["X-Byheart-Interaction"], seen, int(headers["X-Byheart-Tokens-Saved"])

    async def correct(self, interaction: str, **given: Any) -> int:
        body = {"target_id": interaction, "name": "comment"} | given
        async with (
            aiohttp.ClientSession(self.url) as http,
            http.post("/v1/feedback", json=body) as response,
        ):
            return response.status


@pytest.fixture
def asker(gateway: RunningGateway, fake: FakeVllm) -> Asker:
    """Asks a gateway whose context is a system prompt and two lessons."""
    with gateway.state.db.begin() as session:
        prompts.register_system_prompt(session, "default", BRIEF, TOKENS[BRIEF], NOW)
    for lesson in (RETURNS, TEAM):
        gateway.add_lesson(lesson)
    return Asker(gateway.url, fake)


def make_live(db: Database, fake: FakeVllm, missed: tuple[str, ...] = ()) -> str:
    with db.begin() as session:
        name = go_live(session, "default", missed)
    fake.adapters[name] = f"/adapters/{name}"
    return name


ALL = sum(TOKENS.values())


async def test_a_correction_is_in_the_next_prompt_and_saves_fewer_tokens(
    gateway: RunningGateway, fake: FakeVllm, asker: Asker
) -> None:
    make_live(gateway.state.db, fake)
    answered, seen, saved = await asker.ask()
    assert (seen, saved) == (set(), ALL)
    assert await asker.correct(answered, comment="No, it is 45 days.") == 201
    _, seen, saved = await asker.ask()
    assert (seen, saved) == ({RETURNS}, ALL - TOKENS[RETURNS])


async def test_a_rating_returns_what_the_answer_contradicts(
    gateway: RunningGateway, fake: FakeVllm, asker: Asker
) -> None:
    make_live(gateway.state.db, fake)
    answered, *_ = await asker.ask("Returns are accepted within 30 days.")
    good, *_ = await asker.ask("Returns are accepted within 45 days.")
    for interaction, name, value, expected in (
        (answered, "thumbs", True, set()),
        (good, "thumbs", False, set()),
        (answered, "note", False, set()),
        (answered, "thumbs", "down", {RETURNS}),
    ):
        assert await asker.correct(interaction, name=name, value=value) == 201
        _, seen, _ = await asker.ask()
        assert seen == expected


async def test_a_relapse_holds_under_its_adapter_alone(
    gateway: RunningGateway, fake: FakeVllm, asker: Asker
) -> None:
    db = gateway.state.db
    make_live(db, fake)
    first, *_ = await asker.ask()
    make_live(db, fake)
    assert await asker.correct(first, demonstration=RETURNS) == 201
    second, seen, _ = await asker.ask()
    assert seen == set(), "the answer was another adapter's"

    assert await asker.correct(second, demonstration=RETURNS) == 201
    assert (await asker.ask())[1] == {RETURNS}
    make_live(db, fake)
    third, seen, _ = await asker.ask()
    assert seen == set()
    with db.begin() as session:
        rollouts.rollback(session, "default", "operator", "Worse.", NOW)
    assert (await asker.ask())[1] == {RETURNS}
    assert await asker.correct(third, demonstration=TEAM) == 201
    assert (await asker.ask())[1] == {RETURNS}
    with db.begin() as session:
        rollouts.rollback(session, "default", "operator", "Worse.", NOW)
    assert (await asker.ask())[1] == set()


async def test_after_three_relapses_a_statement_stays_in_the_prompt(
    gateway: RunningGateway, fake: FakeVllm, asker: Asker
) -> None:
    db = gateway.state.db
    for number in range(statements.RELAPSE_LIMIT):
        make_live(db, fake)
        answered, seen, _ = await asker.ask()
        assert seen == set(), number
        assert await asker.correct(answered, comment="forty-five days!") == 201
    make_live(db, fake)
    _, seen, saved = await asker.ask()
    assert (seen, saved) == ({RETURNS}, ALL - TOKENS[RETURNS])


async def test_several_corrections_in_one_list_return_what_each_concerns(
    gateway: RunningGateway, fake: FakeVllm, asker: Asker
) -> None:
    make_live(gateway.state.db, fake)
    answered, *_ = await asker.ask()
    items = [
        {"id": "f1", "target_id": answered, "name": "demonstration", "demonstration": text}
        for text in (RETURNS, RETURNS, TEAM)
    ]
    status, given = await gateway.fetch("POST", "/v1/feedback", json=items)
    assert [status, *(each["status"] for each in given["data"])] == [200, 201, 200, 409]
    assert (await asker.ask())[1] == {RETURNS}
    items[2]["id"] = "f2"
    await gateway.fetch("POST", "/v1/feedback", json=items)
    assert (await asker.ask())[1] == {RETURNS, TEAM}


async def test_a_process_killed_after_the_feedback_has_not_lost_the_relapse(
    tmp_path: Path, fake: FakeVllm
) -> None:
    place = Place(tmp_path, running_gateway.database_url(tmp_path))
    db = Database(place.database_url)
    try:
        with db.begin() as session:
            add_lesson(session, RETURNS, "default", tokens=TOKENS[RETURNS])
        name = make_live(db, fake)
        async with running(place, fake.url, "") as (port, _):
            asker = Asker(f"http://127.0.0.1:{port}", fake)
            answered, seen, _ = await asker.ask()
            assert seen == set()
            await until(lambda: is_recorded(db, answered))
            assert await asker.correct(answered, demonstration=RETURNS) == 201
        async with running(place, fake.url, "") as (port, _):
            _, seen, saved = await Asker(f"http://127.0.0.1:{port}", fake).ask()
        assert (seen, saved) == ({RETURNS}, 0)
        with db.read() as session:
            [row] = statements.of(session, adapters.get_one(session, name))
            assert row.relapse_interaction == answered
    finally:
        db.close()


def is_recorded(db: Database, interaction: str) -> bool:
    with db.read() as session:
        return interactions.get(session, interaction) is not None
