"""On a full disk (a file system of four megabytes) no acknowledged record is lost."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.schema import InteractionStatus
from tests.support.fake_vllm import FakeVllm
from tests.support.running_gateway import RunningGateway, run_gateway
from tests.support.until import until

pytestmark = pytest.mark.anyio

SIZE = 4 * 2**20
PROMPT = "We sell lamps, chairs and tables. " * 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def ask(gateway: RunningGateway, number: int) -> tuple[int, str]:
    content = f"{number}: {PROMPT}"
    body = {"model": "small", "messages": [{"role": "user", "content": content}], "max_tokens": 9}
    async with gateway.http() as http, http.post("/v1/chat/completions", json=body) as response:
        await response.read()
        return response.status, response.headers.get("X-Byheart-Interaction", "")


async def test_a_full_disk_withholds_answers_loses_none_and_recovers_once_there_is_space(
    fake: FakeVllm, small_disk: Path
) -> None:
    async with run_gateway(small_disk, fake, timeout_s=1.0) as gateway:
        answered = [await ask(gateway, number) for number in range(5)]
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        asked = len(fake.history)
        answered += [await ask(gateway, number) for number in range(5, 40)]
        codes = {status for status, _ in answered}
        assert codes == {200, 503}
        assert len(fake.history) - asked < 30  # what would be withheld is not asked
        filler.unlink()
        await until(lambda: not gateway.state.recorder.degraded)
        after = [await ask(gateway, number) for number in range(40, 45)]
        assert {status for status, _ in after} == {200}
        acknowledged = {key for status, key in answered + after if status == 200}
        rows = {said.interaction.id: said.interaction.status for said in gateway.logged()}
        assert {rows[key] for key in acknowledged} == {InteractionStatus.DONE}
        gateway.state.db.check()
