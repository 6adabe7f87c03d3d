"""The log is durable whatever happens to the database, and the database fails no request."""

import asyncio
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.gateway.log.recorder import Recorder
from store import records
from store.db import Database
from store.schema import InteractionStatus
from tests.support.factories import make_record
from tests.support.fake_vllm import FakeVllm
from tests.support.recorded_calls import record_calls
from tests.support.running_gateway import QUESTION, RunningGateway, run_gateway
from tests.support.until import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_database")]

ASK = {"model": "small", "messages": QUESTION}


async def ask(gateway: RunningGateway, text: str, **headers: str) -> tuple[int, str]:
    body = ASK | {"messages": [{"role": "user", "content": text}]}
    async with (
        gateway.http() as http,
        http.post("/v1/chat/completions", json=body, headers=headers) as response,
    ):
        return response.status, response.headers["X-Byheart-Interaction"]


def running(gateway: RunningGateway) -> list[str]:
    states = {row.interaction.id: row.interaction.status for row in gateway.logged()}
    return [key for key, status in states.items() if status is InteractionStatus.RUNNING]


def spooled(gateway: RunningGateway) -> int:
    return len(list((gateway.folder / "spool").glob("*.spool")))


async def test_a_locked_database_barely_delays_answers_and_each_is_replayed_once(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, timeout_s=1.0) as gateway:
        ids = [(await ask(gateway, "before"))[1]]
        with gateway.locked_database():
            async with asyncio.timeout(15):  # 20 s if one waited after the other
                answers = await asyncio.gather(*(ask(gateway, f"n{n}") for n in range(20)))
            with capture_logs() as logs:
                answers.append(await ask(gateway, "later"))
            assert not {"spooling", "last view serves"} & {log["event"] for log in logs}
            assert {status for status, _ in answers} == {200}
            assert spooled(gateway) >= 1
            async with gateway.http() as http:
                assert (await (await http.get("/healthz")).json())["log"] == "spool"
        ids += [interaction for _, interaction in answers]
        await until(lambda: not spooled(gateway) and not gateway.state.recorder.degraded)
        ids.append((await ask(gateway, "after"))[1])

        assert sorted(row.interaction.id for row in gateway.logged()) == sorted(ids)
        async with gateway.http() as http:
            assert (await (await http.get("/healthz")).json())["log"] == "database"


async def test_the_spool_of_an_earlier_process_is_replayed_at_start(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, timeout_s=0.1) as gateway:
        with gateway.locked_database():
            _, spooled_id = await ask(gateway, "spooled")
            crashed_spool = tmp_path / "kept"
            shutil.copytree(tmp_path / "spool", crashed_spool)
    # The first gateway has replayed it at its end; a crash before that leaves the batch.
    for batch in crashed_spool.iterdir():
        shutil.copy(batch, tmp_path / "spool")
    async with run_gateway(tmp_path, fake) as gateway:
        await until(lambda: not spooled(gateway))
        await ask(gateway, "next")

        assert [row.interaction.id for row in gateway.logged()].count(spooled_id) == 1
        assert len(gateway.logged()) == 2


async def test_without_a_database_the_last_view_serves_and_nothing_is_lost(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, timeout_s=0.2) as gateway:
        gateway.add_lesson("We open at nine.")
        await ask(gateway, "before")
        with gateway.no_database():
            assert (await ask(gateway, "during"))[0] == 200
            assert "We open at nine." in fake.history[-1]["messages"][0]["content"]
            status, _ = await ask(gateway, "during again")
            assert status == 200
            assert spooled(gateway) >= 1
        await until(lambda: not spooled(gateway))
        questions = [row.payload.messages[0]["content"] for row in gateway.logged()]
        assert sorted(questions) == ["before", "during", "during again"]


async def test_an_answer_that_cannot_be_logged_anywhere_is_withheld(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, timeout_s=0.1) as gateway:
        spool = tmp_path / "spool"
        spool.rmdir()
        spool.write_text("in the way")
        with gateway.locked_database():
            async with gateway.http() as http:
                plain = await http.post("/v1/chat/completions", json=ASK)
                assert plain.status == 503
                assert (await plain.json())["error"]["code"] == "not_logged"
                stream = await http.post("/v1/chat/completions", json=ASK | {"stream": True})
                body = await stream.read()
                assert b"not_logged" in body
                assert b"[DONE]" not in body
        spool.unlink()
        spool.mkdir()
        await until(lambda: not gateway.state.recorder.degraded)
        assert (await ask(gateway, "after"))[0] == 200


async def test_while_nothing_can_be_logged_requests_do_not_reach_the_model(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake, timeout_s=0.1, spool_bytes=10) as gateway:
        with gateway.locked_database():
            assert (await ask(gateway, "answered, and withheld"))[0] == 503
            assert len(fake.history) == 1
            assert (await ask(gateway, "refused"))[0] == 503
            assert len(fake.history) == 1
            assert (await gateway.fetch("GET", "/readyz"))[0] == 503
            assert (await gateway.fetch("GET", "/healthz"))[1]["log"] == "none"
        await until(lambda: not gateway.state.recorder.degraded)
        assert (await ask(gateway, "after"))[0] == 200
        await until(lambda: not running(gateway))


async def test_strict_logging_rejects_requests_while_the_database_is_unavailable(
    fake: FakeVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.db.BUSY_TIMEOUT_MS", 500)  # the recovery waits behind a write
    commits = record_calls(monkeypatch, Database, "begin_connection")
    recoveries = record_calls(monkeypatch, Recorder, "_mark_aborted")
    async with run_gateway(tmp_path, fake, timeout_s=0.1, strict=True) as gateway:
        assert (await ask(gateway, "before"))[0] == 200
        with gateway.locked_database():
            before = len(commits)
            recoveries.clear()
            asking = [asyncio.create_task(ask(gateway, "during"))]
            # The writer then waits for the lock, and the next record is queued.
            await until(lambda: len(commits) > before)
            asking.append(asyncio.create_task(ask(gateway, "behind it")))
            assert {status for status, _ in await asyncio.gather(*asking)} == {503}
            assert (await ask(gateway, "during again"))[0] == 503
            # The recorder tries to leave the degraded state, and must find the database locked.
            await until(lambda: recoveries)
            assert (await gateway.fetch("GET", "/readyz"))[0] == 503
        assert len(fake.history) == 1
        await until(lambda: not gateway.state.recorder.degraded)
        assert (await gateway.fetch("GET", "/readyz"))[0] == 200
        assert (await ask(gateway, "after"))[0] == 200
        assert len(fake.history) == 2
        await until(lambda: not running(gateway))


async def test_a_running_request_is_listed_as_running(
    fake: FakeVllm, gateway: RunningGateway
) -> None:
    fake.token_delay_s = 0.3
    asking = asyncio.create_task(ask(gateway, "one two three"))
    await until(lambda: running(gateway))
    (row,) = gateway.logged()
    assert row.payload.messages == [{"role": "user", "content": "one two three"}]
    await asking
    (row,) = gateway.logged()
    assert row.interaction.status is InteractionStatus.DONE


async def test_requests_interrupted_by_a_crash_are_aborted_at_the_next_start(
    fake: FakeVllm, tmp_path: Path
) -> None:
    async with run_gateway(tmp_path, fake) as gateway:
        with gateway.state.db.begin() as session:
            died = make_record(
                namespace="default", server="gateway", status=InteractionStatus.RUNNING
            )
            records.save(session.connection(), [died])
    async with run_gateway(tmp_path, fake) as gateway:
        await until(lambda: gateway.logged()[0].interaction.status is InteractionStatus.ABORTED)
        assert gateway.logged()[0].interaction.error == records.INTERRUPTED


async def test_requests_in_flight_at_shutdown_are_logged(fake: FakeVllm, tmp_path: Path) -> None:
    fake.token_delay_s = 0.05
    async with run_gateway(tmp_path, fake) as gateway:
        asks = [asyncio.create_task(ask(gateway, f"n{n}")) for n in range(10)]
        await until(lambda: gateway.state.inflight.count() == 10)
    answers = await asyncio.gather(*asks)
    async with run_gateway(tmp_path, fake) as gateway:
        statuses = {row.interaction.id: row.interaction.status for row in gateway.logged()}

    assert {status for status, _ in answers} == {200}
    assert statuses == dict.fromkeys((i for _, i in answers), InteractionStatus.DONE)


async def test_nothing_is_written_to_a_database_file_that_was_replaced(
    fake: FakeVllm, tmp_path: Path
) -> None:
    file = tmp_path / "byheart.db"

    async with run_gateway(tmp_path, fake) as gateway:
        if not file.exists():
            pytest.skip("PostgreSQL's files are its own")
        assert (await ask(gateway, "before"))[0] == 200
        backup = file.read_bytes()
        for left in tmp_path.glob("byheart.db*"):
            left.unlink()
        file.write_bytes(backup)
        assert (await ask(gateway, "during"))[0] == 200
        assert gateway.state.recorder.degraded
    async with run_gateway(tmp_path, fake) as gateway:
        await until(lambda: not gateway.state.recorder.degraded)
        assert "during" in [row.payload.messages[0]["content"] for row in gateway.logged()]
