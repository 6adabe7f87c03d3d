"""Feedback while the log is behind."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import orjson
import pytest

from agent.gateway import feedback
from agent.gateway.errors import RequestError
from agent.gateway.parts import Parts, utc_now
from config.sections import Server
from store import namespaces
from store.db import Database
from tests.factories import NOW

JSON_BODY = {b"content-type": b"application/json"}


@dataclass
class Behind:
    degraded: bool


@dataclass
class FewParts:
    db: Database
    recorder: Behind
    settings: Server = Server()  # noqa: RUF009 — frozen
    now: Any = utc_now


@pytest.mark.parametrize(("degraded", "status"), [(False, 404), (True, 503)])
def test_an_unknown_target_may_be_in_the_spool(db: Database, degraded: bool, status: int) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "default", NOW)
    parts = cast("Parts", FewParts(db, Behind(degraded)))
    body = orjson.dumps({"target_id": "int_1", "name": "thumbs"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(event: Any) -> None:
        raise AssertionError(event)

    with pytest.raises(RequestError) as caught:
        asyncio.run(feedback.give(parts, JSON_BODY, receive, send))

    assert caught.value.status == status
