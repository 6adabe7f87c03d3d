"""`run_control_api()`: a running gateway with the control API, and requests to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from agent.control.app import build
from agent.control.dependencies import ControlState
from agent.gateway.access.api_key import issue_key
from config.settings import load
from store import namespaces
from store.db import Database
from store.keys import Grant, Scope
from store.schema import Trust
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import PEPPER, RunningGateway, run_gateway

API = "/api/v1"


@asynccontextmanager
async def run_control_api(
    tmp_path: Path, fake: FakeVllm | None = None, **options: Any
) -> AsyncIterator[RunningGateway]:
    """Serve a gateway with the control API and the namespaces `shop` and `bank` until left.

    Args:
        tmp_path: Holds the data and the engine's model folder.
        fake: The engine, which is started here; by default, one that no test needs to see.
        options: As in `run_gateway()`.
    """
    model = tmp_path / "model"
    model.mkdir()
    words = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.save(str(model / "tokenizer.json"))
    settings = load(
        environ={}, overrides={"store": {"data_dir": tmp_path}, "engine": {"model": str(model)}}
    )

    def control(db: Database) -> Any:
        return build(ControlState(db, settings, PEPPER, lambda: datetime.now(UTC)))

    async with (
        fake or FakeVllm(model="small") as engine,
        run_gateway(tmp_path, engine, control=control, **options) as gateway,
    ):
        with gateway.state.db.begin() as session:
            for name in ("shop", "bank"):
                namespaces.ensure(session, name, datetime.now(UTC))
        yield gateway


def create_key(gateway: RunningGateway, namespace: str | None, *scopes: Scope) -> str:
    """Store a key with these scopes; returns its text."""
    grant = Grant(f"{namespace} {scopes}", namespace, Trust.USER, frozenset(scopes))
    with gateway.state.db.begin() as session:
        return issue_key(session, PEPPER, grant, "operator", datetime.now(UTC))


async def pages(
    gateway: RunningGateway, path: str, key: str | None = None, **query: Any
) -> list[Any]:
    """Fetch every page of a list; returns the rows."""
    rows: list[Any] = []
    cursor: Any = ""
    while cursor is not None:
        params = query | ({"after": cursor} if cursor else {})
        status, body = await gateway.fetch("GET", API + path, key, params=params)
        assert status == 200, body
        rows += body["data"]
        cursor = body["next"]
    return rows
