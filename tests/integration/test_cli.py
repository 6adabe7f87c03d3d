"""The verbs in a shell: what they print where, and their exit codes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agent.process.data_dir import ADDRESS_FILE, daemon_is_running, lock_data_dir
from tests.support.running_daemon import environment
from tests.support.until import until_sync


class Shell:
    """Runs `byheart` on a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"

    def __call__(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "agent", *arguments],
            env=environment(self.data, settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)


@pytest.fixture
def byheart(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_only_the_result_goes_to_standard_output_and_logs_go_to_standard_error(byheart):
    byheart("lessons", "add", "Lamps cost 15.")
    done = byheart("train", "now")
    assert done.returncode == 0
    assert done.stdout.startswith("run_")
    assert len(done.stdout.splitlines()) == 1
    assert "run opened" in done.stderr


def test_creating_a_database_is_reported_once(byheart):
    first, second = byheart("status"), byheart("status")
    assert str(byheart.data / "byheart.db") in first.stderr
    assert second.stderr == ""


def test_namespaces_clear_removes_what_compile_registered(byheart):
    policy = byheart.write("policy.md", "The shop opens at nine.\n")
    anchors = byheart.write(
        "anchors.jsonl", '{"prompt": "When?", "expect": {"contains": ["nine"]}}\n'
    )
    assert byheart("compile", policy, "--anchors", anchors).returncode == 0

    assert byheart("namespaces", "clear", "default", "--yes").returncode == 0

    assert byheart("namespaces", "clear", "nobody", "--yes").returncode == 2
    with closing(sqlite3.connect(byheart.data / "byheart.db")) as db:
        assert db.execute("SELECT count(*) FROM anchors").fetchone() == (0,)
        newest = "SELECT text FROM system_prompts ORDER BY id DESC LIMIT 1"
        assert db.execute(newest).fetchone() == ("",)
    refused = byheart("train", "now")
    assert refused.returncode != 0
    assert byheart("compile", policy).returncode == 0


def test_a_namespace_is_created_once_and_needs_a_valid_name(byheart):
    assert byheart("namespaces", "add", "shop").returncode == 0
    assert byheart("namespaces", "add", "shop").returncode == 0
    refused = byheart("namespaces", "add", "Shop!")
    assert refused.returncode == 2
    assert "is not a valid namespace name" in refused.stderr
    rows = json.loads(byheart("namespaces", "ls", "-o", "json").stdout)
    assert [row["namespace"] for row in rows] == ["default", "shop"]
    with closing(sqlite3.connect(byheart.data / "byheart.db")) as database:
        told = database.execute("SELECT count(*) FROM audit WHERE action = 'namespace added'")
        assert told.fetchone() == (1,)


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "now"),
        ("train", "plan"),
        ("train", "ls"),
        ("lessons", "ls"),
        ("rollout", "status"),
    ],
)
def test_an_unknown_namespace_is_an_error_that_names_it(byheart, arguments):
    done = byheart(*arguments, "-n", "nosuch")
    assert done.returncode == 2
    assert "no namespace 'nosuch'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unsupported_database_is_rejected_with_the_remedy(byheart):
    done = byheart("status", BYHEART_STORE__URL="mysql://root@localhost/byheart")
    assert done.returncode == 1
    assert "store.url" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_with_attached_servers_needs_engine_model(byheart):
    attached = {"BYHEART_ENGINE__URLS": "http://127.0.0.1:9"}
    byheart("lessons", "add", "Lamps cost 15.")
    for arguments in (("train", "now"), ("compile", byheart.write("p.md", "Be brief."))):
        done = byheart(*arguments, **attached)
        assert done.returncode == 1
        assert "Set engine.model" in done.stderr
    assert json.loads(byheart("train", "ls", "-o", "json").stdout) == []


def test_a_worker_without_engine_urls_is_rejected_with_the_remedy(byheart):
    done = byheart("worker")
    assert done.returncode == 1
    assert "engine.urls" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_shows_the_address_only_while_the_daemon_runs(byheart):
    byheart.data.mkdir()
    left = json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()})
    (byheart.data / ADDRESS_FILE).write_text(left)
    with lock_data_dir(byheart.data):
        assert "serving at http://127.0.0.1:1" in byheart("status").stdout
    assert "no daemon is running" in byheart("status").stdout


def counts(byheart: Shell) -> tuple[int, int]:
    planned = json.loads(byheart("train", "plan", "-o", "json").stdout)
    return planned["seeds"], planned["anchors"]


def test_train_plan_shows_what_the_next_run_waits_for(byheart):
    def next_run() -> str:
        return json.loads(byheart("train", "plan", "-o", "json").stdout)["next_run"]

    byheart("lessons", "add", "Refunds take 3 days.")
    assert "byheart train now" in next_run()
    run = byheart("train", "now").stdout.strip()
    assert next_run() == f"after {run} has finished"


def test_compile_replaces_only_the_seeds_or_anchors_that_it_is_given(byheart):
    policy = byheart.write("p.md", "Refunds within 45 days.")
    seeds = byheart.write("s.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n')
    anchors = byheart.write("a.jsonl", '{"prompt": "a", "expect": {"contains": "45"}}\n')
    byheart("compile", policy, "--seeds", seeds, "--anchors", anchors)
    assert counts(byheart) == (2, 1)
    byheart("compile", policy, "--seeds", byheart.write("t.jsonl", '{"prompt": "c"}\n'))
    assert counts(byheart) == (1, 1)
    byheart("compile", policy)
    assert counts(byheart) == (1, 1)


def test_compile_stores_nothing_if_a_file_has_an_error(byheart):
    policy = byheart.write("p.md", "Refunds within 45 days.")
    seeds = byheart.write("s.jsonl", '{"prompt": "a"}\n')
    anchors = byheart.write("a.jsonl", '\n{"prompt": "q", "expect": {"contains": 5}}\n')
    done = byheart("compile", policy, "--seeds", seeds, "--anchors", anchors)
    assert done.returncode == 2
    assert "a.jsonl, line 2: expect.contains" in done.stderr
    assert counts(byheart) == (0, 0)
    assert json.loads(byheart("train", "ls", "-o", "json").stdout) == []


def test_compile_with_wait_fails_if_no_daemon_runs(byheart):
    done = byheart("compile", byheart.write("p.md", "Refunds within 45 days."), "--wait")
    assert done.returncode == 1
    assert "byheart serve" in done.stderr


def test_db_verify_detects_a_corrupt_database(byheart):
    sound = json.loads(byheart("db", "verify", "-o", "json").stdout)
    assert (sound["database"], sound["records_damaged"]) == ("consistent", 0)
    with closing(sqlite3.connect(byheart.data / "byheart.db")) as connection:
        connection.execute("INSERT INTO seeds (id, namespace, messages) VALUES (1, 'x', '[]')")
        connection.commit()
    done = byheart("db", "verify")
    assert done.returncode == 1
    assert "dangling row in seeds" in done.stderr


def test_an_interrupt_ends_the_demo_and_its_daemon(byheart):
    folder, production = byheart.folder / "demo", byheart.folder / "production"
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "demo", "--fast", "--dir", str(folder)],
        # The demo plays in its own folder, whatever the shell says.
        env={**os.environ, "BYHEART_STORE__DATA_DIR": str(production)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # As in a terminal, also where the tests run in the background of a shell.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        until_sync(lambda: daemon_is_running(folder / "data"), 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.wait()
    assert not daemon_is_running(folder / "data")
    assert not production.exists()


@pytest.mark.parametrize("module", ["agent", "distill"])
def test_help_exits_with_0(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Usage" in done.stdout or "usage" in done.stdout
