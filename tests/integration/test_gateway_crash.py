"""After a kill at any point, every answer that a client has completely is in the database, once."""

import asyncio
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from sqlalchemy import make_url

from store import interactions
from store.db import Database
from store.schema import InteractionStatus
from tests.support import running_gateway
from tests.support.crash_gateway import POINTS, Place, running
from tests.support.fake_vllm import FakeVllm
from tests.support.until import until

KILLS = {"sqlite": 200, "postgresql": 60}
MANY = 100
"""So many reach every point, however slow the machine is."""
CLIENTS = 6
LONGEST_LIFE_S = 2.0
SOURCES = Path(__file__).parents[2] / "agent"


@dataclass
class Ledger:
    """What clients have seen."""

    whole: dict[str, str] = field(default_factory=dict)
    """Text of the answers that they have to the last byte, by interaction."""
    asked: int = 0


def test_every_failpoint_kills_a_process() -> None:
    reached = {
        name
        for file in SOURCES.rglob("*.py")
        for name in re.findall(r'\breach\("([^"]+)"\)', file.read_text())
    }
    assert reached == set(POINTS)


@pytest.mark.anyio
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("each_database")
async def test_no_kill_loses_an_answer_that_a_client_received(tmp_path: Path) -> None:
    chance, ledger = random.Random(4), Ledger()
    place = Place(tmp_path, running_gateway.database_url(tmp_path))
    kills = KILLS[make_url(place.database_url).get_backend_name()]
    fake = FakeVllm(model="small")
    fake.token_delay_s = 0.002
    with fake.in_thread():
        died_at: list[str] = []
        for number in range(kills):
            point = f"{POINTS[number % len(POINTS)]}:{chance.randint(1, 9)}"
            setting = point if chance.random() < 0.75 else ""
            died_at += await life(place, fake.url, ledger, chance, setting)
        async with running(place, fake.url, ""):
            with opened(place.database_url) as db:
                await settled(place.folder, db)
    assert len(ledger.whole) > kills
    check(place, ledger)
    if kills > MANY:
        assert set(died_at) == set(POINTS), "some points were never reached"


async def life(
    place: Place, engine: str, ledger: Ledger, chance: random.Random, setting: str
) -> list[str]:
    """Serve clients until the process dies; where it did, if at a point."""
    async with running(place, engine, setting) as (port, process):
        with stuck(place.database_url) if chance.random() < 0.5 else nullcontext():
            await ask_until_dead(port, ledger, chance.uniform(0.1, 0.6), process, setting)
        name = setting.partition(":")[0]
        return [name] if process.exitcode == -9 and setting and not process.was_ended else []


async def ask_until_dead(
    port: int, ledger: Ledger, life_s: float, process: Any, setting: str
) -> None:
    """Keep clients asking; where no point is set, or it is not reached, the process is killed."""
    clients = [asyncio.create_task(client(port, ledger, number)) for number in range(CLIENTS)]
    deadline = asyncio.get_running_loop().time() + (LONGEST_LIFE_S if setting else life_s)
    while process.is_alive() and asyncio.get_running_loop().time() < deadline:
        await anyio.sleep(0.01)
    if process.is_alive():
        process.was_ended = True
        process.kill()
    process.join()
    await asyncio.gather(*clients)


async def client(port: int, ledger: Ledger, number: int) -> None:
    """Ask for plain answers and streams in turn, until nobody answers."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        try:
            for turn in range(10_000):
                await ask(http, ledger, is_stream=bool((turn + number) % 2))
        except (aiohttp.ClientError, OSError):
            return


async def ask(http: aiohttp.ClientSession, ledger: Ledger, *, is_stream: bool) -> None:
    ledger.asked += 1
    text = f"Question {ledger.asked}?"
    messages = [{"role": "user", "content": text}]
    body = {"model": "small", "messages": messages, "stream": is_stream}
    async with http.post("/v1/chat/completions", json=body) as response:
        raw = await response.read()
        if response.status == 200 and (not is_stream or raw.endswith(b"data: [DONE]\n\n")):
            ledger.whole[response.headers["X-Byheart-Interaction"]] = f"small heard: {text}"


async def settled(folder: Path, db: Database) -> None:
    """Wait until a last process has caught up with what the others left."""

    def is_settled() -> bool:
        with db.read() as session:
            rows = interactions.recent(session, "default", 1_000_000)
            return all(row.status is not InteractionStatus.RUNNING for row in rows)

    await until(lambda: not list((folder / "spool").glob("*.spool")) and is_settled(), 60)


def check(place: Place, ledger: Ledger) -> None:
    """Compare what clients have with what is recorded."""
    with opened(place.database_url) as db, db.read() as session:
        db.check()
        rows = {row.id: row for row in interactions.recent(session, "default", 1_000_000)}
        texts = {key: interactions.payload(session, key) for key in ledger.whole}
    assert ledger.whole.keys() <= rows.keys()
    assert {rows[key].status for key in ledger.whole} == {InteractionStatus.DONE}
    assert {key: payload.response for key, payload in texts.items() if payload} == ledger.whole
    assert len(rows) <= ledger.asked
    assert not (place.folder / "spool" / "quarantine.log").exists()


@contextmanager
def stuck(database_url: str) -> Iterator[None]:
    """Hold the write lock, as a stuck writer does, so that records are spooled."""
    with opened(database_url) as db, running_gateway.locked(db):
        yield


@contextmanager
def opened(database_url: str) -> Iterator[Database]:
    """A database, closed on leaving."""
    db = Database(database_url)
    try:
        yield db
    finally:
        db.close()
