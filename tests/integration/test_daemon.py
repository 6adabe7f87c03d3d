"""`byheart serve` as its users see it: a process, attached to a fake vLLM, over real HTTP."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from store import adapters, interactions, jobs, namespaces, runs
from store.schema import InteractionStatus, RunStatus
from tests.support.adapter_folder import BASE, STUDENT, score, write_adapter
from tests.support.factories import go_live
from tests.support.fake_vllm import Died, FakeVllm
from tests.support.running_daemon import RunningDaemon, environment, is_ready, run_daemon
from tests.support.until import until_sync

RIGHT = "Our lamps have a warranty of 6 years."


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    engine = FakeVllm(model="small")
    with engine.in_thread():
        yield engine


@pytest.fixture
def daemon(fake: FakeVllm, tmp_path: Path) -> Iterator[RunningDaemon]:
    with run_daemon(tmp_path / "data", {"BYHEART_ENGINE__URLS": fake.url}) as running:
        yield running


def last_prompt(fake: FakeVllm) -> list[dict[str, str]]:
    return next(body["messages"] for body in reversed(fake.history) if "messages" in body)


def lessons(daemon: RunningDaemon) -> list[dict[str, str]]:
    return daemon.cli("lessons", "ls", "-o", "json")


def test_a_demonstration_becomes_a_lesson_in_the_prompt_of_the_next_request(fake, daemon):
    wrong = daemon.chat("How long is the warranty on lamps?")
    assert daemon.demonstrate(wrong.headers["X-Byheart-Interaction"], RIGHT).status_code == 201
    [lesson] = until_sync(lambda: lessons(daemon), 20)
    assert (lesson["text"], lesson["status"], lesson["trust"]) == (RIGHT, "active", "operator")
    after = daemon.chat("And for how many years is a lamp guaranteed?")
    assert RIGHT in last_prompt(fake)[0]["content"]
    assert after.headers["X-Byheart-Context"] != wrong.headers["X-Byheart-Context"]


def test_a_grounded_statement_by_the_model_becomes_the_lesson(fake, daemon):
    fake.answer_with(
        lambda body: "Lamps have a warranty of 6 years." if "prompt" in body else "One year."
    )
    wrong = daemon.chat("How long is the warranty on lamps?")
    daemon.demonstrate(wrong.headers["X-Byheart-Interaction"], "No, it is 6 years.")
    [lesson] = until_sync(lambda: lessons(daemon), 20)
    assert lesson["text"] == "Lamps have a warranty of 6 years."


def test_a_lesson_that_the_operator_adds_is_in_the_next_prompt_and_a_retired_one_is_not(
    fake, daemon
):
    added = daemon.cli("lessons", "add", "Sign every answer with Kestrel.", "--kind", "rule")
    daemon.chat("Hello")
    assert "Sign every answer with Kestrel." in last_prompt(fake)[0]["content"]
    daemon.cli("lessons", "retire", added.strip())
    daemon.chat("Hello")
    assert all(message["role"] != "system" for message in last_prompt(fake))


def test_an_opted_out_conversation_gives_no_lessons(daemon):
    wrong = daemon.chat("How long is the warranty on lamps?", store=False)
    daemon.demonstrate(wrong.headers["X-Byheart-Interaction"], RIGHT)
    seen = daemon.chat("How do I wash wool?")
    daemon.demonstrate(seen.headers["X-Byheart-Interaction"], "Wool is washed cold.")
    texts = [lesson["text"] for lesson in until_sync(lambda: lessons(daemon), 20)]
    assert texts == ["Wool is washed cold."]


def test_requests_are_answered_while_extraction_and_trainer_fail(fake, tmp_path):
    def broken_for_extraction(body: dict[str, Any]) -> str:
        if "prompt" in body:
            raise Died
        return "One year."

    fake.answer_with(broken_for_extraction)
    damaged = tmp_path / "damaged model"
    damaged.mkdir()
    (damaged / "config.json").write_text("{}")
    settings = {
        "BYHEART_ENGINE__URLS": fake.url,
        "BYHEART_ENGINE__MODEL": str(damaged),
        "BYHEART_ENGINE__SERVED_MODEL_NAME": "small",
        "BYHEART_DISTILL__AUTO": "true",
        "BYHEART_DISTILL__MIN_NEW_LESSONS": "1",
        "BYHEART_DISTILL__SETTLE_S": "0",
    }
    with run_daemon(tmp_path / "data", settings) as daemon:
        wrong = daemon.chat("How long is the warranty on lamps?")
        daemon.demonstrate(wrong.headers["X-Byheart-Interaction"], RIGHT)
        daemon.cli("lessons", "add", "Sign every answer with Kestrel.", "--kind", "rule")

        replies = []
        until_sync(
            lambda: replies.append(daemon.chat("Hi")) or broken_parts(daemon) == ALL_PARTS, 60
        )

        assert {reply.status_code for reply in replies} == {200}
        assert "Kestrel" in last_prompt(fake)[0]["content"]


ALL_PARTS = {"extract", "train"}


def broken_parts(daemon: RunningDaemon) -> set[str]:
    """The kinds of background work that have failed."""
    with daemon.database() as db, db.read() as session:
        failed = {job.kind for job in jobs.listing(session, 100) if job.error}
        runs_failed = any(run.status is RunStatus.FAILED for run in runs.listing(session))
    return failed & {"extract"} | ({"train"} if runs_failed else set())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["asked", "terminal gone"])
def test_on_a_signal_answers_in_flight_finish_and_the_exit_code_is_0(fake, daemon, number):
    fake.token_delay_s = 0.2
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(daemon.chat("one two three four five", stream=True))
    )
    asking.start()
    until_sync(lambda: fake.running, 10)
    assert daemon.end(number) == 0
    asking.join()
    assert answers[0].text.rstrip().endswith("data: [DONE]")
    assert not (daemon.folder / "server.json").exists()


def test_a_data_folder_that_was_moved_serves_the_same_adapter(fake, tmp_path):
    here, there = tmp_path / "data", tmp_path / "moved"
    score(fake, STUDENT, BASE)
    settings = {"BYHEART_ENGINE__URLS": fake.url}
    with run_daemon(here, settings) as daemon, daemon.database() as db, db.begin() as session:
        name = go_live(session, namespaces.DEFAULT)
        adapter = adapters.get_one(session, name)
        adapter.manifest_sha256 = write_adapter(adapters.folder(adapter, here))
    here.rename(there)
    fake.adapters.clear()

    with run_daemon(there, settings) as daemon:
        answer = daemon.chat("Hello")

    assert answer.headers["X-Byheart-Version"] == name
    assert fake.adapters == {name: str(there / "adapters" / namespaces.DEFAULT / name)}


def test_an_idle_connection_stays_open_for_keep_alive_s(fake, tmp_path):
    settings = {"BYHEART_ENGINE__URLS": fake.url, "BYHEART_SERVER__KEEP_ALIVE_S": "2"}
    with run_daemon(tmp_path / "data", settings) as daemon:
        host, port = daemon.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.settimeout(1)
            while not connection.recv(4096).endswith(b"}"):
                pass
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(2)
            assert connection.recv(1) == b""


def test_a_signal_during_the_start_ends_the_daemon_immediately_and_cleanly(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(60)
        urls = {"BYHEART_ENGINE__URLS": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with run_daemon(tmp_path / "data", urls, wait=False) as starting:
            connection, _ = silent.accept()  # it asks the engine, and gets no answer
            with connection:
                assert starting.end(signal.SIGINT, timeout_s=20) == 0
    assert "stopping" in starting.logfile.read_text()
    assert "Unclosed" not in starting.logfile.read_text()


class Hanging(FakeVllm):
    """A server that can fall silent."""

    hangs = False
    asked = 0

    async def _models(self, request: web.Request) -> web.Response:
        self.asked += self.hangs
        while self.hangs:
            await asyncio.sleep(0.05)
        return await super()._models(request)


def test_a_hanging_engine_does_not_delay_the_shutdown(tmp_path):
    engine = Hanging(model="small")
    with engine.in_thread():
        with run_daemon(tmp_path / "data", {"BYHEART_ENGINE__URLS": engine.url}) as daemon:
            engine.hangs = True
            until_sync(lambda: engine.asked, 30)
            assert daemon.end(signal.SIGTERM, timeout_s=20) == 0
        engine.hangs = False


def test_with_keys_required_the_first_start_prints_an_admin_key_and_any_address_is_allowed(
    fake, tmp_path
):
    settings = {
        "BYHEART_ENGINE__URLS": fake.url,
        "BYHEART_SERVER__KEYS": "required",
        "BYHEART_SERVER__HOST": "0.0.0.0",
    }
    shown = []
    for _ in range(2):
        with run_daemon(tmp_path / "data", settings, wait=False) as daemon:
            until_sync(lambda: "ready:" in daemon.logfile.read_text().split("stopping")[-1], 60)
            shown.append(re.findall(r"bh_[0-9a-f]{16}_[0-9a-f]{64}", daemon.logfile.read_text()))
            url = daemon.url.replace("0.0.0.0", "127.0.0.1")
            held = {"Authorization": f"Bearer {shown[0][0]}"}
            assert daemon.http.get(f"{url}/v1/models").status_code == 401
            assert daemon.http.get(f"{url}/v1/models", headers=held).status_code == 200
            assert daemon.http.get(f"{url}/api/v1/audit", headers=held).status_code == 200
    assert shown[0] == shown[1]
    assert len(shown[0]) == 1


def test_a_second_daemon_on_the_same_folder_is_rejected_with_the_remedy(fake, daemon):
    again = subprocess.run(
        [sys.executable, "-m", "agent", "serve"],
        env=environment(daemon.folder, {"BYHEART_ENGINE__URLS": fake.url}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1
    assert "store.data_dir" in again.stderr
    assert is_ready(daemon)


def test_the_daemon_waits_for_an_engine_that_starts_later(tmp_path):
    engine = FakeVllm(model="small")
    with engine.in_thread():
        engine.run(engine.down)
        attached = {"BYHEART_ENGINE__URLS": engine.url}
        with run_daemon(tmp_path, attached, wait=False) as daemon:
            until_sync(lambda: "waiting for the engine" in daemon.logfile.read_text(), 60)
            engine.run(engine.up)
            until_sync(lambda: is_ready(daemon), 60)


def test_an_engine_that_never_starts_is_an_error_that_names_it(tmp_path):
    gone = {"BYHEART_ENGINE__URLS": "http://127.0.0.1:9", "BYHEART_ENGINE__START_TIMEOUT_S": "2"}
    with run_daemon(tmp_path, gone, wait=False) as daemon:
        assert daemon.process.wait(60) == 1
        assert "cannot connect to the engine at http://127.0.0.1:9" in daemon.logfile.read_text()


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"BYHEART_ENGINE__URLS": "http://ann:secret@127.0.0.1:9"}, "engine.api_key"),
        ({"BYHEART_ENGINE__URLS": "localhost:8000"}, "http://"),
        ({"BYHEART_SERVER__HOST": "0.0.0.0"}, "127.0.0.1"),
        ({"BYHEART_DISTILL__RANK": "512"}, "max_lora_rank"),
        ({"BYHEART_SERVER__PROT": "1"}, "server.port"),
        ({"BYHEART_ENGINE__SERVED_MODEL_NAME": "other"}, "served_model_name"),
        ({"BYHEART_ENGINE__MODEL": "/nowhere"}, "config.json"),
        ({"BYHEART_DISTILL__AUTO": "true"}, "Set engine.model"),
    ],
)
def test_settings_that_cannot_work_are_rejected_with_the_remedy(fake, tmp_path, settings, remedy):
    refused = subprocess.run(
        [sys.executable, "-m", "agent", "serve"],
        env=environment(tmp_path, {"BYHEART_ENGINE__URLS": fake.url, **settings}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode in (1, 2)
    assert remedy in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "secret" not in refused.stderr


def test_after_sigkill_mid_burst_every_finished_interaction_is_in_the_database(fake, tmp_path):
    finished: list[str] = []

    def ask() -> None:
        with httpx.Client(timeout=30) as http:
            while True:
                body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
                try:
                    reply = http.post(f"{url}/v1/chat/completions", json=body)
                except httpx.TransportError:
                    return
                finished.append(reply.headers["X-Byheart-Interaction"])

    with run_daemon(tmp_path / "data", {"BYHEART_ENGINE__URLS": fake.url}) as daemon:
        url = daemon.url
        clients = [threading.Thread(target=ask) for _ in range(8)]
        for client in clients:
            client.start()
        until_sync(lambda: len(finished) > 60, 30)
        daemon.end(signal.SIGKILL)
        for client in clients:
            client.join()
        with daemon.database() as db, db.read() as session:
            kept = {row.id for row in interactions.recent(session, "default", 10_000)}
    assert set(finished) <= kept
    with run_daemon(tmp_path / "data", {"BYHEART_ENGINE__URLS": fake.url}) as again:
        assert again.chat("hi").status_code == 200


@pytest.mark.parametrize("where", ["port", "socket"])
def test_with_the_engine_down_requests_get_503_with_retry_after_and_are_recorded_as_failed(
    tmp_path, where
):
    engine = FakeVllm(model="small", uds=tmp_path / "vllm.sock" if where == "socket" else None)
    with engine.in_thread(), run_daemon(tmp_path, {"BYHEART_ENGINE__URLS": engine.url}) as daemon:
        engine.run(engine.down)  # connection refused, or no such socket
        replies = [
            daemon.chat("hi", model=model, stream=stream)
            for model in ("small", "base")
            for stream in (False, True)
        ]
        for reply in replies:
            assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
            assert set(reply.json()["error"]) == {"message", "type", "code", "param"}
            assert reply.json()["error"]["code"] == "engine_unavailable"
        with daemon.database() as db, db.read() as session:
            rows = interactions.recent(session, "default", 10)
        asked = {reply.headers["X-Byheart-Interaction"] for reply in replies}
        assert {row.id for row in rows} == asked
        assert {row.status for row in rows} == {InteractionStatus.FAILED}
        assert {row.error for row in rows} == {"the engine could not be reached"}  # not where it is
        engine.run(engine.up)
        assert daemon.chat("hi").status_code == 200
