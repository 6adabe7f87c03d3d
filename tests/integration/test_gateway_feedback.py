"""Feedback over HTTP."""

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from store import namespaces
from store.models import Feedback
from tests.fake_vllm import FakeVllm
from tests.gateway_rig import QUESTION, Rig, gateway, run

ASK = {"model": "small", "messages": QUESTION}


async def give(rig: Rig, body: dict, namespace: str = "default") -> tuple[int, dict]:
    headers = {"X-Byheart-Namespace": namespace}
    async with (
        rig.http() as http,
        http.post("/v1/feedback", json=body, headers=headers) as response,
    ):
        return response.status, await response.json()


async def ask(rig: Rig) -> str:
    async with rig.http() as http, http.post("/v1/chat/completions", json=ASK) as response:
        return response.headers["X-Byheart-Interaction"]


def test_feedback_is_kept_with_the_callers_trust(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeVllm(model="small") as fake, gateway(tmp_path, fake) as rig:
            target = await ask(rig)
            status, answer = await give(
                rig,
                {
                    "target_id": target,
                    "name": "demonstration",
                    "demonstration": "At ten.",
                    "comment": "wrong hour",
                    "value": 0,
                    "tags": {"by": "shop"},
                },
            )
            with rig.parts.db.read() as session:
                [row] = session.scalars(select(Feedback).where(Feedback.interaction == target))

            assert status == 201
            assert answer == {"id": row.id, "target_id": target, "created": True}
            assert (row.demonstration, row.comment) == ("At ten.", "wrong hour")
            assert (row.value, row.tags) == ({"value": 0}, {"by": "shop"})
            assert (row.trust, row.principal) == ("operator", "local")

    run(scenario())


def test_the_same_feedback_twice_is_one_and_other_content_conflicts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeVllm(model="small") as fake, gateway(tmp_path, fake) as rig:
            body = {"id": "f1", "target_id": await ask(rig), "name": "thumbs", "value": True}

            assert (await give(rig, body))[0] == 201
            assert await give(rig, body) == (
                200,
                {"id": "f1", "target_id": body["target_id"], "created": False},
            )
            status, answer = await give(rig, body | {"value": False})
            assert (status, answer["error"]["code"]) == (409, "feedback_conflict")

    run(scenario())


def test_feedback_on_nothing_or_on_another_namespace_is_not_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeVllm(model="small") as fake, gateway(tmp_path, fake) as rig:
            with rig.parts.db.begin() as session:
                namespaces.ensure(session, "other", datetime.now(UTC))
            target = await ask(rig)
            body = {"target_id": target, "name": "thumbs", "value": "up"}

            status, answer = await give(rig, body | {"target_id": "chatcmpl-1"})
            assert status == 404
            assert "X-Byheart-Interaction" in answer["error"]["message"]
            assert "completion" not in answer["error"]["message"]
            assert (await give(rig, body, namespace="other"))[0] == 404
            assert (await give(rig, body))[0] == 201

    run(scenario())


def test_malformed_feedback_is_refused_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeVllm(model="small") as fake, gateway(tmp_path, fake) as rig:
            good = {"target_id": "int_0", "name": "thumbs"}
            for bad, param in (
                (good | {"trust": "operator"}, "trust"),
                (good | {"name": "Thumbs Up"}, "name"),
                ({"name": "thumbs"}, "target_id"),
                (good | {"comment": ""}, "comment"),
            ):
                status, answer = await give(rig, bad)
                assert (status, answer["error"]["param"]) == (400, param)

    run(scenario())
