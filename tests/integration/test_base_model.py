"""The embedded model: unpacked by a child that ends with this process."""

import asyncio
import os
from pathlib import Path

import pytest

from agent.engine import base_model
from agent.process.guard import descendants
from config.settings import load
from tests.support.until import until

pytestmark = pytest.mark.anyio


async def test_a_start_cancelled_while_the_model_is_unpacked_leaves_no_process(
    tmp_path: Path,
) -> None:
    settings = load(environ={}, overrides={"store": {"data_dir": tmp_path}})
    before = set(descendants(os.getpid()))

    unpacking = asyncio.ensure_future(base_model.prepare_model_folder(settings, print))

    def has_child() -> bool:
        assert not unpacking.done()
        return len(set(descendants(os.getpid())) - before) >= 2  # the guard, and below it the child

    await until(has_child)
    unpacking.cancel()
    await asyncio.wait({unpacking})
    assert set(descendants(os.getpid())) <= before
