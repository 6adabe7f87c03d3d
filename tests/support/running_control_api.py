"""A gateway with a control API, and how tests ask it."""

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
from tests.support.gateway_rig import PEPPER, Rig, gateway

API = "/api/v1"


@asynccontextmanager
async def controlled(tmp_path: Path, **options: Any) -> AsyncIterator[Rig]:
    """A gateway with a control API."""
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
        FakeVllm(model="small") as fake,
        gateway(tmp_path, fake, control=control, **options) as rig,
    ):
        with rig.state.db.begin() as session:
            for name in ("shop", "bank"):
                namespaces.ensure(session, name, datetime.now(UTC))
        yield rig


def key(rig: Rig, namespace: str | None, *scopes: Scope) -> str:
    grant = Grant(f"{namespace} {scopes}", namespace, Trust.USER, frozenset(scopes))
    with rig.state.db.begin() as session:
        return issue_key(session, PEPPER, grant, "operator", datetime.now(UTC))


async def pages(rig: Rig, path: str, held: str | None = None, **asked: Any) -> list[Any]:
    rows: list[Any] = []
    following: Any = ""
    while following is not None:
        params = asked | ({"after": following} if following else {})
        status, said = await rig.fetch("GET", API + path, held, params=params)
        assert status == 200, said
        rows += said["data"]
        following = said["next"]
    return rows
