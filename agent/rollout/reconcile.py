"""Make the engine have what the tables say: the live adapters, and those to roll back to.

vLLM forgets its adapters on a restart, so this runs before readiness, after every restart of the
engine, and every few seconds. An adapter that is no longer what was trained is taken out for good:
a wrong answer is worse than an unlearned one. One that the engine does not take, for a flag that
is missing or for want of memory, or whose folder is away, stays what it is and is tried again;
until it loads, the base answers with the lessons in its prompt. Nothing that is answering is
unloaded, and nothing that is not in our tables.
"""

import structlog

from agent.engine import adapters as loaded
from agent.engine.adapters import AdapterRefused, AdapterRejected
from agent.engine.client import VllmEngine
from agent.work import Work, utcnow
from store import adapters, rollouts
from store.manifests import AdapterCorrupt, AdapterMissing
from store.models import Adapter

log = structlog.get_logger(__name__)


async def reconcile(work: Work) -> None:
    """Load what is missing, and unload what nobody needs and nobody is using."""
    refused: set[str] = set()

    async def tend(server: VllmEngine) -> None:
        present = set(await server.models())
        # The engine first: a candidate has its row before it is loaded, so none is a stray.
        with work.db.read() as session:
            missing = [each for each in adapters.wanted(session) if each.name not in present]
            strays = adapters.strays(session, present)
        for adapter in missing:
            if not await _restored(work, server, adapter):
                refused.add(adapter.name)
        for name in strays:
            if not work.inflight.in_use(name):
                await server.unload_adapter(name)
                log.info("unloaded", adapter=name)

    async with work.loading():
        await work.engine.everywhere(tend)
    work.unserved.update(refused)
    work.unserved.intersection_update(refused)


async def _restored(work: Work, server: VllmEngine, adapter: Adapter) -> bool:
    """Load an adapter again; False if the server does not take it."""
    try:
        await loaded.load(server, adapter.name, adapter.path, adapter.manifest_sha256, work.model)
        log.info("restored", adapter=adapter.name)
    except (AdapterRefused, AdapterMissing) as error:
        if adapter.name not in work.unserved:
            log.error("not restored, the base answers", adapter=adapter.name, reason=str(error))
        return False
    except (AdapterRejected, AdapterCorrupt) as error:
        log.error("withdrawn", adapter=adapter.name, reason=str(error))
        with work.db.begin() as session:
            rollouts.withdraw(session, adapter.name, str(error), utcnow())
    return True
