"""The embedded model: unpacked by a child that ends with this process."""

import asyncio
import os
from pathlib import Path

from agent.engine import base_model
from agent.process.guard import descendants
from config.settings import load


def test_a_start_that_is_cut_short_while_the_model_is_unpacked_leaves_no_process(
    tmp_path: Path,
) -> None:
    settings = load(environ={}, overrides={"store": {"data_dir": tmp_path}})
    before = set(descendants(os.getpid()))

    async def scenario() -> None:
        unpacking = asyncio.ensure_future(base_model.prepare_model_folder(settings, print))
        while len(set(descendants(os.getpid())) - before) < 2:  # the guard, and below it the child
            assert not unpacking.done()
            await asyncio.sleep(0.01)
        unpacking.cancel()
        await asyncio.wait({unpacking})

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert set(descendants(os.getpid())) <= before
