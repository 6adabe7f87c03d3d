"""Loading an adapter: what is refused, and that nothing refused stays loaded."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.engine import adapters
from agent.engine.adapters import AdapterRejected
from agent.engine.client import EngineUnavailable, VllmEngine
from store.manifests import AdapterCorrupt
from tests.fake_vllm import FakeVllm

pytestmark = pytest.mark.anyio

NAME = "bh-base-0123"
COMPLETION = [11, 12, 13]
BASE = {11: -3.0, 12: -0.5, 13: -6.0}
STUDENT = {11: -0.2, 12: -0.4, 13: -0.1}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with FakeVllm() as fake:
        scores(fake, STUDENT, BASE)
        yield fake


@pytest.fixture
async def engine(fake: FakeVllm) -> AsyncIterator[VllmEngine]:
    client = VllmEngine([fake.url])
    yield client
    await client.close()


def scores(fake: FakeVllm, adapter: dict[int, float], base: dict[int, float]) -> None:
    """Let the fake answer with these under an adapter's name and the base's, nearly."""
    fake.score_with(
        lambda model, ids: [
            (base if model == fake.model else adapter).get(token, -1.0) + 0.01 for token in ids
        ]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    probe = {
        "prompt_ids": [1, 2],
        "completion_ids": COMPLETION,
        "student": [STUDENT[token] for token in COMPLETION],
        "base": [BASE[token] for token in COMPLETION],
    }
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()
    }
    manifest = {"files": files, "base": "smol", "probe": [probe]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


async def load(engine: VllmEngine, folder: Path) -> None:
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    await adapters.load(engine, NAME, folder, digest, "base")


async def test_the_trained_student_is_loaded(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    await load(engine, folder)

    assert fake.adapters == {NAME: str(folder)}


async def test_loading_again_is_harmless(fake: FakeVllm, engine: VllmEngine, folder: Path) -> None:
    await load(engine, folder)
    await load(engine, folder)

    assert set(fake.adapters) == {NAME}


async def test_the_base_under_the_adapters_name_is_rejected(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    scores(fake, BASE, BASE)

    with pytest.raises(AdapterRejected, match="does not answer like the trained student"):
        await load(engine, folder)

    assert fake.adapters == {}


async def test_an_engine_with_another_base_is_told_apart(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    scores(fake, STUDENT, {11: -9.0, 12: -9.0, 13: -9.0})

    with pytest.raises(AdapterRejected, match="base is not the one"):
        await load(engine, folder)

    assert fake.adapters == {}


async def test_changed_files_never_reach_the_engine(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"weights!")

    with pytest.raises(AdapterCorrupt):
        await load(engine, folder)

    assert fake.adapters == {}
    assert fake.history == []


async def test_what_the_engine_refuses_is_rejected_with_its_reason(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    fake.adapters[NAME] = "/another/folder"

    with pytest.raises(AdapterRejected, match="already been loaded"):
        await load(engine, folder)


async def test_an_engine_that_fails_while_it_is_asked_keeps_nothing(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    fake.die_after_tokens = 0

    with pytest.raises(EngineUnavailable):
        await load(engine, folder)

    assert fake.adapters == {}


async def test_an_engine_that_is_down_rejects_nothing(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    await fake.down()

    with pytest.raises(EngineUnavailable):
        await load(engine, folder)
