"""`background_loop()`: an event loop in a thread, for tests and fixtures that are not asynchronous.

with background_loop() as loop, loop.wrap_async_context_manager(run_gateway(...)) as gateway:
    status, body = loop.call(gateway.fetch, "GET", "/readyz")
"""

from contextlib import AbstractContextManager

from anyio.from_thread import BlockingPortal, start_blocking_portal


def background_loop() -> AbstractContextManager[BlockingPortal]:
    """Run an event loop on uvloop, as the daemon does, until left."""
    return start_blocking_portal("asyncio", {"use_uvloop": True})
