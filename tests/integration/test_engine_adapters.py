"""Loading an adapter: what is rejected, and that no rejected adapter stays loaded."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.engine.adapters import AdapterLoadError, AdapterMismatch, load_and_verify
from agent.engine.client import VllmEngine
from agent.engine.errors import EngineUnavailable
from store.durable_files import sha256
from store.manifests import MANIFEST, AdapterCorrupt
from tests.support.adapter_folder import BASE, STUDENT, score, write_adapter
from tests.support.fake_vllm import FakeVllm

pytestmark = pytest.mark.anyio

NAME = "bh-base-0123"


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with FakeVllm() as fake:
        score(fake, STUDENT, BASE)
        yield fake


@pytest.fixture
async def engine(fake: FakeVllm) -> AsyncIterator[VllmEngine]:
    client = VllmEngine([fake.url])
    yield client
    await client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_adapter(tmp_path)
    return tmp_path


async def load(engine: VllmEngine, folder: Path) -> None:
    await load_and_verify(engine, NAME, folder, sha256(folder / MANIFEST), "base")


async def test_the_trained_student_is_loaded(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    await load(engine, folder)

    assert fake.adapters == {NAME: str(folder)}


async def test_loading_an_adapter_twice_is_idempotent(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    await load(engine, folder)
    await load(engine, folder)

    assert set(fake.adapters) == {NAME}


async def test_the_base_under_the_adapters_name_is_rejected(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    score(fake, BASE, BASE)

    with pytest.raises(AdapterMismatch, match="does not answer like the trained student"):
        await load(engine, folder)

    assert fake.adapters == {}


async def test_an_engine_with_another_base_is_an_error_and_not_a_mismatch(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    score(fake, STUDENT, {11: -9.0, 12: -9.0, 13: -9.0})

    with pytest.raises(AdapterLoadError, match="trained on a different base"):
        await load(engine, folder)

    assert fake.adapters == {}


async def test_an_adapter_with_changed_files_is_not_loaded(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"weights!")

    with pytest.raises(AdapterCorrupt):
        await load(engine, folder)

    assert fake.adapters == {}
    assert fake.history == []


async def test_an_adapter_that_the_engine_rejects_is_an_error_with_the_engines_reason(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    fake.adapters[NAME] = "/another/folder"

    with pytest.raises(AdapterLoadError, match="already been loaded"):
        await load(engine, folder)


async def test_an_engine_that_fails_during_a_probe_keeps_no_adapter(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    fake.die_after_tokens = 0

    with pytest.raises(EngineUnavailable):
        await load(engine, folder)

    assert fake.adapters == {}


async def test_an_unavailable_engine_is_an_error_and_not_a_mismatch(
    fake: FakeVllm, engine: VllmEngine, folder: Path
) -> None:
    await fake.down()

    with pytest.raises(EngineUnavailable):
        await load(engine, folder)


async def test_a_failed_load_on_one_server_keeps_the_adapter_on_the_others(
    fake: FakeVllm, folder: Path
) -> None:
    async with FakeVllm() as other:
        score(other, STUDENT, BASE)
        both = VllmEngine([fake.url, other.url])
        await load(both, folder)
        other.adapters.clear()
        other.may_load = False
        with pytest.raises(AdapterLoadError):
            await load(both, folder)
        await both.close()

    assert fake.adapters == {NAME: str(folder)}


async def test_every_server_is_probed(fake: FakeVllm, folder: Path) -> None:
    async with FakeVllm() as other:
        score(other, BASE, BASE)
        both = VllmEngine([fake.url, other.url])
        with pytest.raises(AdapterMismatch):
            await load(both, folder)
        await both.close()

        assert other.adapters == {}


async def test_an_unreachable_server_is_skipped(fake: FakeVllm, folder: Path) -> None:
    both = VllmEngine([fake.url, "http://127.0.0.1:9"])

    await load(both, folder)
    await both.close()

    assert fake.adapters == {NAME: str(folder)}
