"""The whole loop on the real vLLM: one daemon, which the last test kills.

The tests share the daemon and run in the order of the file; each stands on what the ones before it
made, as the days of a service do.
"""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from store import adapters, interactions
from store.schema import AdapterStatus
from tests.support.running_daemon import RunningDaemon, run_daemon
from tests.support.until import until_sync

FACTS = {
    "How long is the warranty on lamps?": "Lamps have a warranty of 6 years.",
    "In which city is the shop?": "The shop is in Tartu.",
    "From which value on is delivery free?": "Delivery is free for orders above 70 euros.",
}
FEW_STEPS = {
    "BYHEART_LEARNING__IDLE_S": "1",
    "BYHEART_DISTILL__AUTO": "true",
    "BYHEART_DISTILL__MIN_NEW_LESSONS": str(len(FACTS)),
    "BYHEART_DISTILL__SETTLE_S": "1",
    "BYHEART_DISTILL__STEPS": "8",
    "BYHEART_DISTILL__QUESTIONS_PER_LESSON": "1",
    "BYHEART_DISTILL__MAX_COMPLETION_TOKENS": "16",
    "BYHEART_DISTILL__MAX_ANSWER_TOKENS": "16",
    "BYHEART_DISTILL__STATEMENT_TOLERANCE": "1000",
    "BYHEART_GATE__MARGIN": "0.99",
    "BYHEART_GATE__MIN_GAP_CLOSED": "0",
    "BYHEART_GATE__MIN_FACTS_LEARNED": "0",
    "BYHEART_GATE__MIN_HELD_OUT": "1",
    "BYHEART_GATE__MAX_RETENTION_KL": "5",
    "BYHEART_GATE__MAX_LENGTH_RATIO": "20",
    "BYHEART_GATE__MAX_REPETITION": "1",
    "BYHEART_GATE__MAX_LEAK_RATE": "1",
}

PAUSE_S = 2.0
"""Between two requests while the run trains, which shares two cores with them."""


@pytest.fixture(scope="module")
def daemon(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("loop")
    settings = {**FEW_STEPS, "BYHEART_ENGINE__MODEL": str(base_model)}
    with run_daemon(folder, settings, timeout_s=300) as running:
        yield running


@pytest.fixture(scope="module")
def client(daemon: RunningDaemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def _adapters(daemon: RunningDaemon) -> list[str]:
    with daemon.database() as db, db.read() as session:
        return [adapter.name for adapter in adapters.listing(session, "default")]


def live(daemon: RunningDaemon) -> str | None:
    with daemon.database() as db, db.read() as session:
        adapter = adapters.live(session, "default")
    return adapter.name if adapter else None


# Whoever reads may be held up itself on a busy machine: what is made meanwhile comes at once then.
def test_tokens_are_streamed_while_the_model_generates(daemon, client):
    assert any(_began_before_half_time(daemon, client) for _ in range(3))


def _began_before_half_time(daemon: RunningDaemon, client: openai.OpenAI) -> bool:
    asked = time.monotonic()
    arrivals = [
        time.monotonic() - asked
        for chunk in client.chat.completions.create(
            model=daemon.model,
            messages=[{"role": "user", "content": "Count from one to twenty."}],
            max_tokens=24,
            stream=True,
            store=False,
        )
        if chunk.choices and chunk.choices[0].delta.content
    ]
    assert len(arrivals) > 10
    return arrivals[0] < arrivals[-1] / 2


# The run shares two cores with requests all the time, on whatever machine this is.
@pytest.mark.timeout(1200)
def test_corrections_become_a_live_adapter_and_no_request_fails_during_the_swap(
    daemon,
):
    for question, answer in FACTS.items():
        reply = daemon.chat(question, max_tokens=12, temperature=0)
        assert reply.headers["X-Byheart-Version"] == "base"
        daemon.demonstrate(reply.headers["X-Byheart-Interaction"], answer)
    texts = until_sync(
        lambda: _lessons(daemon, "active", len(FACTS)), 120, daemon.logfile.read_text
    )
    assert any("6 years" in text for text in texts)

    versions: list[str] = []
    stop, hurry = threading.Event(), threading.Event()
    load = threading.Thread(target=_ask_until, args=(daemon, stop, hurry, versions))
    load.start()
    try:
        until_sync(lambda: _adapters(daemon), 900, daemon.logfile.read_text)
        hurry.set()
        until_sync(lambda: live(daemon), 120, daemon.logfile.read_text)
        swapped = len(versions)
        until_sync(lambda: len(versions) > swapped + 3, 60)
    finally:
        hurry.set()
        stop.set()
        load.join()
    name = live(daemon)
    assert set(versions) == {"base", name}
    assert versions == sorted(versions, key=lambda version: version != "base")


def test_internalised_lessons_leave_the_prompt_and_count_as_saved_tokens(daemon):
    lessons = _lessons(daemon, "internalised", 1)
    with_adapter = daemon.chat("Is there a warranty on lamps?", max_tokens=4, store=False)
    body = {"model": "base", "messages": [{"role": "user", "content": "Is there a warranty?"}]}
    with_prompt = daemon.http.post(
        f"{daemon.url}/v1/chat/completions", json=body | {"max_tokens": 4}
    )
    assert lessons
    saved = int(with_adapter.headers["X-Byheart-Tokens-Saved"])
    assert saved > 0
    tokens = [reply.json()["usage"]["prompt_tokens"] for reply in (with_adapter, with_prompt)]
    assert tokens[0] < tokens[1]


def test_a_rollback_immediately_restores_the_base_and_the_lessons_in_the_prompt(daemon):
    bad = live(daemon)
    daemon.cli("rollback", "--yes")
    after = daemon.chat("Is there a warranty on lamps?", max_tokens=4, store=False)
    assert after.headers["X-Byheart-Version"] == "base"
    assert after.headers["X-Byheart-Tokens-Saved"] == "0"
    assert _lessons(daemon, "active", len(FACTS))
    with daemon.database() as db, db.read() as session:
        assert adapters.get(session, bad).status is AdapterStatus.ROLLED_BACK
    until_sync(lambda: bad not in _models(daemon), 60)


def test_after_sigkill_mid_burst_no_finished_answer_is_lost_and_no_process_is_left(daemon):
    finished: list[str] = []
    url, ours = daemon.url, _processes(daemon.folder)
    assert len(ours) >= 3
    clients = [
        threading.Thread(target=_burst, args=(url, daemon.model, finished)) for _ in range(4)
    ]
    for each in clients:
        each.start()
    until_sync(lambda: len(finished) > 12, 120, daemon.logfile.read_text)
    daemon.end(signal.SIGKILL)
    for each in clients:
        each.join()
    with daemon.database() as db, db.read() as session:
        kept = {row.id for row in interactions.recent(session, "default", 100_000)}
    assert set(finished) <= kept
    until_sync(lambda: not _processes(daemon.folder) & ours, 60)


def _lessons(daemon: RunningDaemon, status: str, count: int) -> list[str]:
    rows = daemon.cli("lessons", "ls", "-o", "json")
    texts = [row["text"] for row in rows if row["status"] == status]
    return texts if len(texts) >= count else []


def _models(daemon: RunningDaemon) -> set[str]:
    cards = daemon.http.get(f"{daemon.url}/v1/models").json()["data"]
    return {card["id"] for card in cards}


def _ask_until(
    daemon: RunningDaemon, stop: threading.Event, hurry: threading.Event, versions: list[str]
) -> None:
    """Ask one question after the other, at first with pauses; every answer must be complete."""
    with httpx.Client(timeout=120) as http:
        while not stop.is_set():
            body = {
                "model": daemon.model,
                "messages": [{"role": "user", "content": "Say hello."}],
                "max_tokens": 6,
                "stream": True,
                "store": False,
            }
            reply = http.post(f"{daemon.url}/v1/chat/completions", json=body)
            assert reply.status_code == 200, reply.text
            assert reply.text.rstrip().endswith("data: [DONE]")
            versions.append(reply.headers["X-Byheart-Version"])
            hurry.wait(PAUSE_S)


def _burst(url: str, model: str, finished: list[str]) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    with httpx.Client(timeout=60) as http:
        while True:
            try:
                reply = http.post(f"{url}/v1/chat/completions", json=body)
            except httpx.TransportError:
                return
            if reply.status_code == 200:
                finished.append(reply.headers["X-Byheart-Interaction"])


def _processes(folder: Path) -> set[int]:
    """Processes whose command line or working directory is of this daemon."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            where = str((process / "cwd").readlink())
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if str(folder) in words or str(folder) in where:
            found.add(int(process.name))
    return found
