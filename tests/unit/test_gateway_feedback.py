"""Feedback while records are in the spool."""

import time
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest

from agent.gateway import feedback
from agent.gateway.access.auth import Authenticator
from agent.gateway.access.fair_share import FairShare
from agent.gateway.access.keyring import Keyring
from agent.gateway.access.limits import RateLimiter
from agent.gateway.access.uploads import Uploads
from agent.gateway.errors import RequestError
from agent.gateway.http.asgi import Call
from agent.gateway.state import GatewayState
from config.sections import Server
from store import namespaces
from store.clock import utcnow
from store.db import Database
from tests.support.factories import NOW

pytestmark = pytest.mark.anyio

JSON_BODY = {b"content-type": b"application/json"}


@dataclass
class Behind:
    degraded: bool


@dataclass
class FewParts:
    db: Database
    recorder: Behind
    authenticator: Authenticator
    settings: Server = Server()  # noqa: RUF009 — frozen
    now: Any = utcnow
    uploads: Uploads = field(default_factory=Uploads)
    feedback_writes: FairShare = field(default_factory=lambda: FairShare(total=1))


@pytest.mark.parametrize(("degraded", "status"), [(False, 404), (True, 503)])
async def test_feedback_on_an_unknown_target_is_503_while_records_are_spooled_and_404_otherwise(
    db: Database, degraded: bool, status: int
) -> None:
    with db.begin() as session:
        namespaces.ensure(session, "default", NOW)
    authenticator = Authenticator(
        Keyring(db, "", utcnow, time.monotonic), RateLimiter(time.monotonic), needs_key=False
    )
    state = cast("GatewayState", FewParts(db, Behind(degraded), authenticator))
    body = orjson.dumps({"target_id": "int_1", "name": "thumbs"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(event: Any) -> None:
        raise AssertionError(event)

    with pytest.raises(RequestError) as caught:
        await feedback.create(state, Call(JSON_BODY, b"", "", receive, send))

    assert caught.value.status == status
