"""Rollouts and reconciliation against a fake vLLM over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.engine.client import VllmEngine
from agent.engine.errors import EngineError
from agent.inflight import Inflight
from agent.jobs.schedule import tick
from agent.rollout import rollout
from agent.rollout.reconcile import reconcile
from agent.runtime import Runtime
from config.settings import load
from store import adapters, jobs, lessons, namespaces, rollouts, runs
from store.clock import utcnow
from store.db import Database, new_id
from store.schema import AdapterStatus, JobStatus, LessonStatus
from tests.support.adapter_folder import BASE, STUDENT, score, write_adapter
from tests.support.event_loop import background_loop
from tests.support.factories import NOW, add_lesson
from tests.support.fake_vllm import FakeVllm

GOOD = {
    "held_out": 12,
    "gap_closed": 0.9,
    "facts": 40,
    "facts_learned": 0.9,
    "retention_kl": 0.01,
    "length_ratio": 1.0,
    "repetition": 0.0,
    "leak_rate": 0.0,
    "compared": {"total": 30, "teacher_only": 0, "candidate_only": 0},
    "frontier": [
        {"context": "whole", "prompt_tokens": 200, "right": 30, "total": 30},
        {"context": "residual", "prompt_tokens": 0, "right": 30, "total": 30},
    ],
}

pytestmark = pytest.mark.anyio


class Shop:
    """A namespace whose adapters are trained folders, and the engine that is to serve them."""

    def __init__(self, runtime: Runtime, fake: FakeVllm, folder: Path) -> None:
        self.runtime = runtime
        self.fake = fake
        self.folder = folder

    def candidate(self, measured: dict[str, Any] = GOOD) -> str:
        name = new_id("bh")
        with self.runtime.db.begin() as session:
            add_lesson(session, f"Lesson {name}.")
            run = runs.open_run(session, "shop", {}, "test", 1000, NOW)
            adapters.register(
                session,
                name=name,
                namespace="shop",
                run=run.id,
                parent=None,
                snapshot=run.snapshot,
                path=str(self.folder / name),
                manifest_sha256=write_adapter(self.folder / name),
                measured=measured,
                now=NOW,
            )
            runs.cancel(session, run.id, NOW)
        return name

    async def roll_out(self, name: str) -> None:
        await rollout.run(self.runtime, {"adapter": name})

    def status(self, name: str) -> AdapterStatus:
        with self.runtime.db.read() as session:
            return adapters.get_one(session, name).status

    def reasons(self, name: str) -> str:
        with self.runtime.db.read() as session:
            return " ".join(adapters.evaluation(session, name).reasons)

    def serving(self) -> str | None:
        with self.runtime.db.read() as session:
            live = adapters.live(session, "shop")
            return live.name if live else None


@asynccontextmanager
async def engine_of(*fakes: FakeVllm) -> AsyncIterator[VllmEngine]:
    engine = VllmEngine([fake.url for fake in fakes])
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
async def shop(db: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    settings = load(environ={}, overrides={"store": {"data_dir": tmp_path}})
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    async with FakeVllm(model="small") as fake, engine_of(fake) as engine:
        score(fake, STUDENT, BASE)
        yield Shop(Runtime(settings, db, engine, "small", Inflight()), fake, tmp_path)


async def test_a_candidate_that_passes_gate_and_probe_goes_live(shop: Shop) -> None:
    name = shop.candidate()

    await shop.roll_out(name)

    assert (shop.serving(), list(shop.fake.adapters)) == (name, [name])


async def test_a_candidate_that_answers_like_the_base_is_rejected_with_the_reason(
    shop: Shop,
) -> None:
    name = shop.candidate()
    score(shop.fake, BASE, BASE)

    await shop.roll_out(name)

    assert shop.status(name) is AdapterStatus.REJECTED
    assert "does not answer like the trained student" in shop.reasons(name)
    assert "gap to the teacher" in shop.reasons(name)
    assert (shop.serving(), shop.fake.adapters) == (None, {})


async def test_a_candidate_that_the_engine_rejects_is_rejected_with_the_engines_reason(
    shop: Shop,
) -> None:
    name = shop.candidate()
    shop.fake.may_load = False

    await shop.roll_out(name)

    assert shop.status(name) is AdapterStatus.REJECTED
    assert "The engine rejects" in shop.reasons(name)


async def test_a_failed_rollout_is_retried_when_the_engine_is_back(
    shop: Shop,
) -> None:
    name = shop.candidate()
    await shop.fake.down()
    with pytest.raises(EngineError):
        await shop.roll_out(name)
    await shop.fake.up()

    tick(shop.runtime.db, shop.runtime.settings, utcnow())

    with shop.runtime.db.read() as session:
        job = jobs.latest(session, f"rollout {name}")
        assert job is not None
        assert job.status is JobStatus.READY
    await shop.roll_out(name)
    assert shop.serving() == name


async def test_a_live_adapter_that_the_engine_rejects_stays_live_and_is_retried(
    shop: Shop,
) -> None:
    name = shop.candidate()
    await shop.roll_out(name)
    shop.fake.adapters.clear()
    shop.fake.may_load = False

    await reconcile(shop.runtime)
    assert shop.status(name) is AdapterStatus.LIVE
    assert shop.runtime.unavailable_adapters == {name}

    shop.fake.may_load = True
    await reconcile(shop.runtime)
    assert shop.runtime.unavailable_adapters == set()
    assert list(shop.fake.adapters) == [name]


async def test_a_live_adapter_whose_folder_is_missing_stays_live_and_is_retried(
    shop: Shop,
) -> None:
    name = shop.candidate()
    await shop.roll_out(name)
    shop.fake.adapters.clear()
    away = (shop.folder / name).rename(shop.folder / "away")

    await reconcile(shop.runtime)
    assert shop.status(name) is AdapterStatus.LIVE
    assert shop.runtime.unavailable_adapters == {name}

    away.rename(shop.folder / name)
    await reconcile(shop.runtime)
    assert list(shop.fake.adapters) == [name]


async def test_a_candidate_with_a_lesson_that_was_retired_is_rejected_and_unloaded(
    shop: Shop,
) -> None:
    name = shop.candidate()
    with shop.runtime.db.begin() as session:
        (lesson,) = lessons.in_use(session, "shop")
        lessons.set_status(session, lesson, LessonStatus.RETIRED)

    await shop.roll_out(name)

    assert (shop.status(name), shop.serving()) == (AdapterStatus.REJECTED, None)
    assert f"Lesson {name}." in shop.reasons(name)
    assert list(shop.fake.adapters) == []


async def test_an_engine_with_another_base_model_changes_no_adapters_status(shop: Shop) -> None:
    name = shop.candidate()
    await shop.roll_out(name)
    shop.fake.adapters.clear()
    score(shop.fake, STUDENT, {11: -9.0, 12: -9.0, 13: -9.0})

    await reconcile(shop.runtime)

    assert shop.status(name) is AdapterStatus.LIVE
    assert shop.runtime.unavailable_adapters == {name}


async def test_a_live_adapter_that_fails_its_probes_is_rolled_back(
    shop: Shop,
) -> None:
    name = shop.candidate()
    await shop.roll_out(name)
    shop.fake.adapters.clear()
    score(shop.fake, BASE, BASE)

    await reconcile(shop.runtime)

    assert (shop.status(name), shop.serving()) == (AdapterStatus.ROLLED_BACK, None)


async def test_a_corrupt_adapter_is_not_a_rollback_target(shop: Shop) -> None:
    first, second = shop.candidate(), shop.candidate()
    await shop.roll_out(first)
    await shop.roll_out(second)
    shop.fake.adapters.clear()
    (shop.folder / first / "adapter_model.safetensors").write_bytes(b"other")

    await reconcile(shop.runtime)

    assert list(shop.fake.adapters) == [second]
    with shop.runtime.db.begin() as session:
        assert rollouts.rollback(session, "shop", "operator", "Worse.", NOW) == (second, None)


async def test_old_adapters_are_unloaded_and_those_of_other_owners_are_not(
    shop: Shop,
) -> None:
    names = [shop.candidate() for _ in range(3)]
    for name in names:
        await shop.roll_out(name)
    shop.fake.adapters |= {"their-sql-lora": "/theirs", "bh-of-another-daemon": "/other"}

    await reconcile(shop.runtime)

    assert set(shop.fake.adapters) == {*names[1:], "their-sql-lora", "bh-of-another-daemon"}


async def test_concurrent_reconciliations_do_not_undo_each_other(shop: Shop) -> None:
    name = shop.candidate()
    await shop.roll_out(name)
    shop.fake.adapters.clear()

    def reconcile_in_another_loop() -> None:
        with background_loop() as loop:
            loop.call(reconcile_alone, shop.runtime)

    await asyncio.gather(*(asyncio.to_thread(reconcile_in_another_loop) for _ in range(4)))

    assert (shop.serving(), list(shop.fake.adapters)) == (name, [name])


async def reconcile_alone(runtime: Runtime) -> None:
    engine = runtime.engine.clone()
    try:
        await reconcile(replace(runtime, engine=engine))
    finally:
        await engine.close()


async def test_a_restarted_server_gets_its_adapters_back_and_the_other_keeps_them(
    shop: Shop,
) -> None:
    name = shop.candidate()
    async with FakeVllm(model="small") as other, engine_of(shop.fake, other) as both:
        score(other, STUDENT, BASE)
        runtime = replace(shop.runtime, engine=both)
        await rollout.run(runtime, {"adapter": name})
        await other.down()
        await reconcile(runtime)
        await other.up()
        await reconcile(runtime)

        assert (list(shop.fake.adapters), list(other.adapters)) == ([name], [name])


async def test_a_live_adapter_whose_probes_the_engine_rejects_stays_live(
    shop: Shop,
) -> None:
    name = shop.candidate()
    await shop.roll_out(name)
    shop.fake.adapters.clear()
    shop.fake.refuse_with = (400, {"error": {"message": "too long", "code": 400}})

    await reconcile(shop.runtime)

    assert shop.status(name) is AdapterStatus.LIVE
    assert (shop.runtime.unavailable_adapters, shop.fake.adapters) == ({name}, {})


async def test_a_failed_rollout_is_not_retried_at_every_tick(shop: Shop) -> None:
    name = shop.candidate()
    with shop.runtime.db.begin() as session:
        jobs.enqueue(session, "rollout", {}, NOW, unique_key=f"rollout {name}", max_attempts=1)
        claim = jobs.claim(session, ["rollout"], utcnow(), 60)
        assert claim
        jobs.fail(session, claim, "the engine is away", utcnow(), 0)
    for seconds, count in ((0, 1), (1000, 2)):
        tick(shop.runtime.db, shop.runtime.settings, utcnow() + timedelta(seconds=seconds))
        with shop.runtime.db.read() as session:
            assert len(jobs.listing(session, 10)) == count


async def test_adapters_already_in_the_engine_are_probed_before_they_serve(shop: Shop) -> None:
    name = shop.candidate()
    await shop.roll_out(name)
    score(shop.fake, BASE, BASE)
    again = replace(shop.runtime, verified=set())  # as after a restart of this process

    await reconcile(again)

    assert (shop.status(name), shop.serving()) == (AdapterStatus.ROLLED_BACK, None)


async def test_an_adapter_is_unavailable_while_it_is_reloaded(shop: Shop) -> None:
    name = shop.candidate()
    await shop.roll_out(name)
    shop.fake.adapters.clear()
    unavailable_adapters: list[set[str]] = []
    load_adapter = VllmEngine.load_adapter

    async def watched(engine: VllmEngine, *arguments: str) -> None:
        unavailable_adapters.append(set(shop.runtime.unavailable_adapters))
        await load_adapter(engine, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VllmEngine, "load_adapter", watched)
        await reconcile(shop.runtime)

    assert unavailable_adapters == [{name}]
    assert shop.runtime.unavailable_adapters == set()
