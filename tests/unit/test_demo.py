"""Which folders `byheart demo` replaces, and when it succeeds or fails."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.cli.demo import CONFIG, DATA, prepare
from agent.cli.errors import InputError
from agent.demo import loop, shops
from agent.demo.errors import DemoFailed, ServiceDied
from agent.demo.service import Service
from agent.process.data_dir import lock_data_dir
from config.settings import load
from store import namespaces, runs
from store.db import Database
from store.schema import AdapterStatus, RunStatus
from tests.support.factories import NOW, add_adapter


@pytest.mark.parametrize("fast", [False, True])
def test_the_demo_replaces_the_folder_of_an_earlier_demo(tmp_path: Path, fast: bool) -> None:
    folder = tmp_path / "demo"
    prepare(folder, fast)
    (folder / "curves.png").touch()
    config = prepare(folder, fast)
    assert not (folder / "curves.png").exists()
    settings = load(config, {})
    assert settings.data_dir == folder / DATA
    assert (0 < settings.distill.steps < 120) is fast


@pytest.mark.parametrize("name", [str(CONFIG), "data.db", "sub/file"])
def test_the_demo_rejects_a_folder_that_is_not_its_own(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "srv" / name
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(InputError, match="--dir"):
        prepare(tmp_path / "srv", False)
    assert precious.read_text() == "precious"


def test_the_demo_rejects_a_folder_in_which_another_demo_runs(tmp_path: Path) -> None:
    config = prepare(tmp_path / "demo", False)
    with lock_data_dir(tmp_path / "demo" / DATA), pytest.raises(InputError, match="Another demo"):
        prepare(tmp_path / "demo", False)
    assert config.exists()


@pytest.fixture
def demo(db: Database, tmp_path: Path) -> loop.Demo:
    with db.begin() as session:
        namespaces.ensure(session, namespaces.DEFAULT, NOW)
    (tmp_path / "daemon.log").write_text("the last words\n")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone = Service("http://127.0.0.1:9", process, tmp_path / "daemon.log")
    shop = shops.read_shop(shops.DEFAULT)
    return loop.Demo(shop, load(environ={}), gone, db, lambda *_: None)


class Alive(Service):
    def check(self) -> None:
        pass


def running(demo: loop.Demo) -> loop.Demo:
    """The same demo, with a daemon that goes on."""
    alive = Alive(demo.service.url, demo.service.process, demo.service.logfile)
    return loop.Demo(demo.shop, demo.settings, alive, demo.db, demo.show)


def test_a_daemon_that_has_died_ends_the_demo_with_the_end_of_its_log(demo: loop.Demo) -> None:
    for stage in (demo.run, demo.await_run, lambda: demo.await_lessons(1)):
        with pytest.raises(ServiceDied, match="the last words"):
            stage()


def test_a_daemon_that_does_not_answer_fails_the_demo(
    demo: loop.Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(loop.Demo, "_stages", refuse)
    with pytest.raises(DemoFailed, match="refused"):
        running(demo).run()


@pytest.mark.parametrize("status", sorted(set(AdapterStatus) - {AdapterStatus.CANDIDATE}))
def test_the_demo_succeeds_only_with_a_live_adapter(demo: loop.Demo, status: AdapterStatus) -> None:
    with demo.db.begin() as session:
        adapter = add_adapter(session, namespaces.DEFAULT)
        adapter.status = status
        runs.start(session, adapter.run, NOW)
        run = runs.finish(session, adapter.run, RunStatus.PUBLISHED, "", NOW, adapter.name)
    if status is AdapterStatus.LIVE:
        assert running(demo).await_rollout(run) == (adapter.name, [])
    else:
        with pytest.raises(DemoFailed, match=str(status)):
            running(demo).await_rollout(run)


def test_the_demo_fails_if_no_run_starts_in_time(
    demo: loop.Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "RUN_S", -demo.settings.distill.settle_s)
    with pytest.raises(DemoFailed, match="No run started"):
        running(demo).await_run()
