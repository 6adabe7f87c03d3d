"""Reconcile the engine with the database: load adapters that should be served, unload the others.

The desired state is in the database: the live adapters, and those that a namespace can roll back
to. vLLM forgets its adapters on a restart, so this runs before the service is ready, after every
restart of the engine, and every few seconds. An adapter is verified (`engine/adapters.py`) on each
server before it answers a request, also where the server had it already.

What happens to an adapter that cannot be served:

- Its files or its answers are not those of the trained adapter: it is withdrawn for good, because
  a wrong answer is worse than an unlearned one.
- The engine does not load it (a missing flag, too little memory) or its folder is unavailable: it
  keeps its status and is tried again. Until then the base answers, with the lessons in the prompt.

An adapter that is answering a request, or that is not in the database, is never unloaded.
"""

from collections.abc import Collection

import structlog

from agent.engine.adapters import AdapterLoadError, AdapterMismatch, load_and_verify
from agent.engine.client import VllmEngine
from agent.runtime import Runtime
from store import adapters, rollouts
from store.adapter_tables import Adapter
from store.clock import utcnow
from store.manifests import AdapterCorrupt, AdapterMissing

log = structlog.get_logger(__name__)


async def reconcile(runtime: Runtime) -> None:
    """Load missing adapters, and unload those that no namespace needs and no request uses."""
    failed: set[str] = set()
    known_unavailable = frozenset(runtime.unavailable_adapters)

    async def reconcile_server(server: VllmEngine) -> None:
        loaded = set(await server.models())
        [url] = server.urls
        _forget_unloaded(runtime, url, loaded)
        # Read after asking the engine: a candidate has its row before it is loaded, so it cannot
        # be mistaken for an unneeded one.
        with runtime.db.read() as session:
            wanted = adapters.required(session)
            unneeded = adapters.unneeded(session, loaded)
        unverified = [adapter for adapter in wanted if (url, adapter.name) not in runtime.verified]
        # Requests run concurrently: the base answers for these until they are verified.
        runtime.unavailable_adapters.update(adapter.name for adapter in unverified)
        for adapter in unverified:
            already_loaded = adapter.name in loaded
            if not await _restore(runtime, server, adapter, already_loaded, known_unavailable):
                failed.add(adapter.name)
        for name in unneeded:
            if not runtime.inflight.in_use(name):
                await server.unload_adapter(name)
                log.info("adapter unloaded", adapter=name)

    async with runtime.adapter_lock():
        await runtime.engine.on_every_server(reconcile_server)
    runtime.unavailable_adapters.update(failed)
    runtime.unavailable_adapters.intersection_update(failed)


def _forget_unloaded(runtime: Runtime, url: str, loaded: set[str]) -> None:
    """Forget the verification of adapters that the server at `url` has lost."""
    runtime.verified.intersection_update(
        {(server, name) for server, name in runtime.verified if server != url or name in loaded}
    )


async def _restore(
    runtime: Runtime,
    server: VllmEngine,
    adapter: Adapter,
    already_loaded: bool,
    known_unavailable: Collection[str],
) -> bool:
    """Load and verify an adapter; withdraw it if it is not what was trained.

    Returns:
        False if the server could not load it, and the base has to answer in its place.
    """
    try:
        await load_and_verify(
            server,
            adapter.name,
            adapters.folder(adapter, runtime.settings.data_dir),
            adapter.manifest_sha256,
            runtime.model,
            already_loaded=already_loaded,
        )
        runtime.verified.update((url, adapter.name) for url in server.urls)
        log.info("adapter restored", adapter=adapter.name)
    except (AdapterLoadError, AdapterMissing) as error:
        if adapter.name not in known_unavailable:
            log.error("adapter not loaded, base answers", adapter=adapter.name, reason=str(error))
        return False
    except (AdapterMismatch, AdapterCorrupt) as error:
        log.error("adapter withdrawn", adapter=adapter.name, reason=str(error))
        with runtime.db.begin() as session:
            rollouts.withdraw(session, adapter.name, str(error), utcnow())
    return True
