"""The audit log: every change over the API names who made it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.gateway.access.api_key import issue_key
from store import audit, keys
from store.keys import Grant, Scope
from store.schema import Trust
from tests.support.factories import NOW, add_adapter, add_lesson, go_live
from tests.support.running_control_api import API, run_control_api
from tests.support.running_gateway import PEPPER, RunningGateway

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    """A gateway with the control API."""
    async with run_control_api(tmp_path) as gateway:
        yield gateway


async def test_the_audit_log_names_who_starts_cancels_approves_or_rolls_back(
    gateway: RunningGateway,
) -> None:
    with gateway.state.db.begin() as session:
        grant = Grant("lead", "shop", Trust.USER, frozenset({Scope.ADMIN}))
        lead = issue_key(session, PEPPER, grant, "operator", NOW)
        add_lesson(session, "We open at nine.")
        live, candidate = go_live(session), add_adapter(session).name

    async def post(path: str) -> str:
        status, said = await gateway.fetch("POST", API + path, lead)
        assert status in (200, 202), said
        return str(said.get("id"))

    started = await post("/runs")
    await post(f"/runs/{started}/cancel")
    await post(f"/adapters/{candidate}/promote")
    await post("/rollback")
    with gateway.state.db.read() as session:
        rows = audit.page(session, None, 4)
        told = [(row.actor, row.action, row.subject) for row in rows]
        [who] = [each.principal for each in keys.keys(session)]

    assert told == [
        (who, "rollback", live),
        (who, "approved", candidate),
        (who, "run cancelled", started),
        (who, "run started", started),
    ]
