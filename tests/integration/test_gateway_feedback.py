"""Feedback over HTTP."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from agent.gateway.access.api_key import issue_key
from store import conversations, interactions, namespaces
from store.keys import Grant, Scope
from store.models import Feedback
from store.schema import Trust
from tests.support.running_gateway import PEPPER, QUESTION, RunningGateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

ASK = {"model": "small", "messages": QUESTION}


async def give(gateway: RunningGateway, body: Any, namespace: str = "default") -> tuple[int, dict]:
    headers = {"X-Byheart-Namespace": namespace}
    async with (
        gateway.http() as http,
        http.post("/v1/feedback", json=body, headers=headers) as response,
    ):
        return response.status, await response.json()


async def ask(gateway: RunningGateway, key: str = "none", **fields: Any) -> str:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        gateway.http() as http,
        http.post("/v1/chat/completions", json=ASK | fields, headers=headers) as response,
    ):
        return response.headers["X-Byheart-Interaction"]


async def test_feedback_turns_an_auxiliary_request_into_a_turn(
    gateway: RunningGateway,
) -> None:
    said = {"role": "user", "content": "Write a title for our conversation of 1974."}
    target = await ask(gateway, messages=[said])
    before = gateway.logged()[0].interaction
    with gateway.state.db.read() as session:
        entries = conversations.count_entries(session, before.conversation)
    await give(gateway, {"target_id": target, "name": "demonstration", "demonstration": "1974"})
    with gateway.state.db.read() as session:
        read = interactions.turns(session, before.conversation)
        more = conversations.count_entries(session, before.conversation)

    assert before.auxiliary
    assert [turn.feedback[0].demonstration for turn in read] == ["1974"]
    assert (entries, more) == (0, 1)


async def test_feedback_is_stored_with_the_callers_trust(gateway: RunningGateway) -> None:
    target = await ask(gateway)
    status, answer = await give(
        gateway,
        {
            "target_id": target,
            "name": "demonstration",
            "demonstration": "At ten.",
            "comment": "wrong hour",
            "value": 0,
            "tags": {"by": "shop"},
        },
    )
    with gateway.state.db.read() as session:
        [row] = session.scalars(select(Feedback).where(Feedback.interaction == target))

    assert status == 201
    assert answer == {"id": row.id, "target_id": target, "created": True}
    assert (row.demonstration, row.comment) == ("At ten.", "wrong hour")
    assert (row.value, row.tags) == ({"value": 0}, {"by": "shop"})
    assert (row.trust, row.principal) == ("operator", "local")


async def test_repeating_feedback_is_idempotent_and_other_content_under_its_id_conflicts(
    gateway: RunningGateway,
) -> None:
    body = {"id": "f1", "target_id": await ask(gateway), "name": "thumbs", "value": True}

    assert (await give(gateway, body))[0] == 201
    assert await give(gateway, body) == (
        200,
        {"id": "f1", "target_id": body["target_id"], "created": False},
    )
    status, answer = await give(gateway, body | {"value": False})
    assert (status, answer["error"]["code"]) == (409, "feedback_conflict")


async def test_feedback_on_an_unknown_target_or_in_another_namespace_is_404(
    gateway: RunningGateway,
) -> None:
    with gateway.state.db.begin() as session:
        namespaces.ensure(session, "other", datetime.now(UTC))
    target = await ask(gateway)
    body = {"target_id": target, "name": "thumbs", "value": "up"}

    status, answer = await give(gateway, body | {"target_id": "chatcmpl-1"})
    assert status == 404
    assert "X-Byheart-Interaction" in answer["error"]["message"]
    assert "completion" not in answer["error"]["message"]
    assert (await give(gateway, body, namespace="other"))[0] == 404
    assert (await give(gateway, body))[0] == 201


async def test_malformed_feedback_is_an_error_that_names_the_field(gateway: RunningGateway) -> None:
    good = {"target_id": "int_0", "name": "thumbs"}
    for bad, param in (
        (good | {"trust": "operator"}, "trust"),
        (good | {"name": "Thumbs Up"}, "name"),
        ({"name": "thumbs"}, "target_id"),
        (good | {"comment": ""}, "comment"),
    ):
        status, answer = await give(gateway, bad)
        assert (status, answer["error"]["param"]) == (400, param)


async def test_each_item_of_a_list_of_feedback_succeeds_or_fails_alone(
    gateway: RunningGateway,
) -> None:
    target = await ask(gateway)
    many = [
        {"id": "f1", "target_id": target, "name": "thumbs", "value": True},
        {"id": "f1", "target_id": target, "name": "thumbs", "value": True},
        {"id": "f1", "target_id": target, "name": "thumbs", "value": False},
        {"target_id": "int_0", "name": "thumbs"},
        {"target_id": target, "nmae": "thumbs"},
        "thumbs",
    ]
    status, answer = await give(gateway, many)
    assert status == 200
    assert [one["status"] for one in answer["data"]] == [201, 200, 409, 404, 400, 400]
    assert (await give(gateway, many * 50))[0] == 400
    _, kept = await gateway.fetch("GET", "/v1/feedback")
    assert [one["id"] for one in kept["data"]] == ["f1"]


async def test_feedback_can_be_put_under_an_id_and_read(gateway: RunningGateway) -> None:
    target = await ask(gateway)
    body = {"target_id": target, "name": "rating", "value": 4}
    for path, sent, status in (
        ("f1", body, 201),
        ("f1", body, 200),
        ("f1", body | {"value": 5}, 409),
        ("f1", body | {"id": "f2"}, 400),
        ("f%2F1", body, 400),
    ):
        assert (await gateway.fetch("PUT", f"/v1/feedback/{path}", json=sent))[0] == status
    _, found = await gateway.fetch("GET", "/v1/feedback/f1")
    assert found | body | {"value": {"value": 4}} == found
    assert (await gateway.fetch("GET", "/v1/feedback/f2"))[0] == 404


async def test_feedback_is_read_in_pages(gateway: RunningGateway) -> None:
    target, other = await ask(gateway), await ask(gateway)
    ids = [f"f{number:03}" for number in range(120)]
    await give(gateway, [{"id": one, "target_id": target, "name": "thumbs"} for one in ids])
    await give(gateway, {"id": "other", "target_id": other, "name": "thumbs"})
    seen: list[str] = []
    more = True
    while more:
        asked = {"target_id": target} | ({"after": seen[-1]} if seen else {})
        _, page = await gateway.fetch("GET", "/v1/feedback", params=asked)
        seen += [one["id"] for one in page["data"]]
        more = page["has_more"]
    assert seen == ids


async def test_a_key_rates_its_own_interactions_and_sees_its_own_feedback(
    gateway: RunningGateway,
) -> None:
    ann, bob, boss = (
        make_key(gateway, name, scopes)
        for name, scopes in (
            ("ann", [Scope.INFER, Scope.FEEDBACK]),
            ("bob", [Scope.INFER, Scope.FEEDBACK]),
            ("boss", [Scope.FEEDBACK, Scope.READ]),
        )
    )
    target = await ask(gateway, key=ann, user="anns-customer")
    body = {"id": "f1", "target_id": target, "name": "thumbs"}
    for held, sent, status in (
        (bob, body, 404),
        (bob, body | {"target_id": "int_0"}, 404),
        (ann, body, 201),
        (boss, body, 409),
        (boss, body | {"id": "f2"}, 201),
    ):
        assert (await gateway.fetch("POST", "/v1/feedback", held, json=sent))[0] == status
    for held, status, count in ((ann, 200, 1), (bob, 404, 0), (boss, 200, 2)):
        assert (await gateway.fetch("GET", "/v1/feedback/f1", held))[0] == status
        assert len((await gateway.fetch("GET", "/v1/feedback", held))[1]["data"]) == count


def make_key(gateway: RunningGateway, name: str, scopes: list[Scope]) -> str:
    grant = Grant(name, "default", Trust.USER, frozenset(scopes))
    with gateway.state.db.begin() as session:
        return issue_key(session, PEPPER, grant, "operator", datetime.now(UTC))
