"""Make the engine have what the tables say: the live adapters, and those to roll back to.

vLLM forgets its adapters on a restart, so this runs before readiness, after every restart of the
engine, and every few seconds; what a server has and this process has not seen prove itself is
proven first. An adapter that is no longer what was trained is taken out for good:
a wrong answer is worse than an unlearned one. One that the engine does not take, for a flag that
is missing or for want of memory, or whose folder is away, stays what it is and is tried again;
until it loads, the base answers with the lessons in its prompt. Nothing that is answering is
unloaded, and nothing that is not in our tables.
"""

from collections.abc import Collection

import structlog

from agent.engine.adapters import AdapterLoadError, AdapterMismatch, load_and_verify
from agent.engine.client import VllmEngine
from agent.runtime import Runtime
from store import adapters, rollouts
from store.clock import utcnow
from store.manifests import AdapterCorrupt, AdapterMissing
from store.models import Adapter

log = structlog.get_logger(__name__)


async def reconcile(runtime: Runtime) -> None:
    """Load what is missing, and unload what nobody needs and nobody is using."""
    refused: set[str] = set()
    known = frozenset(runtime.unserved)

    async def tend(server: VllmEngine) -> None:
        present = set(await server.models())
        [url] = server.urls
        runtime.verified.intersection_update(
            {each for each in runtime.verified if each[0] != url or each[1] in present}
        )
        # The engine first: a candidate has its row before it is loaded, so none is a stray.
        with runtime.db.read() as session:
            wanted = adapters.wanted(session)
            strays = adapters.strays(session, present)
        unproven = [each for each in wanted if (url, each.name) not in runtime.verified]
        # Other requests are going on: nobody asks for it before it is proven.
        runtime.unserved.update(each.name for each in unproven)
        for adapter in unproven:
            if not await _restored(runtime, server, adapter, adapter.name in present, known):
                refused.add(adapter.name)
        for name in strays:
            if not runtime.inflight.in_use(name):
                await server.unload_adapter(name)
                log.info("unloaded", adapter=name)

    async with runtime.adapter_lock():
        await runtime.engine.on_every_server(tend)
    runtime.unserved.update(refused)
    runtime.unserved.intersection_update(refused)


async def _restored(
    runtime: Runtime, server: VllmEngine, adapter: Adapter, present: bool, known: Collection[str]
) -> bool:
    """Load an adapter unless it is present, and prove it; False if the server does not take it."""
    name, judged = adapter.name, adapter.manifest_sha256
    try:
        await load_and_verify(
            server, name, adapter.path, judged, runtime.model, already_loaded=present
        )
        runtime.verified.update((url, name) for url in server.urls)
        log.info("restored", adapter=name)
    except (AdapterLoadError, AdapterMissing) as error:
        if name not in known:
            log.error("not restored, the base answers", adapter=name, reason=str(error))
        return False
    except (AdapterMismatch, AdapterCorrupt) as error:
        log.error("withdrawn", adapter=adapter.name, reason=str(error))
        with runtime.db.begin() as session:
            rollouts.withdraw(session, adapter.name, str(error), utcnow())
    return True
