"""The daemon's log: structured lines, without prompts or keys."""

import json
from pathlib import Path

from tests.support.fake_vllm import FakeVllm
from tests.support.running_daemon import run_daemon
from tests.support.until import until_sync

CANARY = "MAUVE-4711"
TOLD = "byheart: "
"""How the lines for whoever started the daemon begin."""


def test_neither_prompts_nor_keys_are_in_the_log_whatever_fails(tmp_path: Path) -> None:
    fake = FakeVllm(model="small")
    with (
        fake.in_thread(),
        run_daemon(tmp_path / "data", {"BYHEART_ENGINE__URLS": fake.url}) as daemon,
    ):
        key = daemon.cli("keys", "create", "bot", "-o", "json")["key"]
        held = {"Authorization": f"Bearer {key}"}
        bad = {"Authorization": f"Bearer {key[:-4]}0000"}
        chat = f"{daemon.url}/v1/chat/completions"
        body = {"model": daemon.model, "messages": [{"role": "user", "content": CANARY}]}
        fake.enqueue(CANARY, CANARY)
        assert daemon.http.post(chat, json=body, headers=held).status_code == 200
        assert daemon.http.post(chat, json=body, headers=bad).status_code == 401
        assert daemon.http.post(chat, json=body | {CANARY: CANARY}, headers=held).status_code == 400
        assert daemon.http.post(chat, json=body | {"model": CANARY}).status_code == 404
        assert daemon.http.get(f"{daemon.url}/{CANARY}").status_code == 404
        fake.refuse_with = (500, {"error": {"message": CANARY}})
        assert daemon.http.post(chat, json=body, headers=held).status_code == 502
        fake.refuse_with = None
        fake.die_after_tokens = 1
        stream = body | {"stream": True, "max_tokens": 5}
        assert b"[DONE]" not in daemon.http.post(chat, json=stream, headers=held).content
        fake.run(fake.down)
        assert daemon.http.post(chat, json=body, headers=held).status_code == 503
        rated = {"target_id": CANARY, "name": "thumbs", "comment": CANARY}
        assert daemon.http.post(f"{daemon.url}/v1/feedback", json=rated).status_code == 404
        found = f"{daemon.url}/api/v1/interactions"
        assert daemon.http.get(found, params={"contains": CANARY}).status_code == 200
        until_sync(lambda: daemon.logfile.read_text(), 10)
    log = daemon.logfile.read_text()
    assert CANARY not in log
    assert key.rsplit("_", 1)[1] not in log
    assert "Traceback" not in log
    events = [json.loads(line) for line in log.splitlines() if line and not line.startswith(TOLD)]
    assert all({"event", "level", "timestamp"} <= set(event) for event in events)
