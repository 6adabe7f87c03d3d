"""Make the engine have what the tables say: the live adapters, and those to roll back to.

vLLM forgets its adapters on a restart, so this runs before readiness, after every restart of the
engine, and on every tick. An adapter that can no longer be loaded as it was trained is rolled
back: a wrong answer is worse than an unlearned one. Nothing that is answering is unloaded.
"""

import structlog

from agent.engine import adapters as loaded
from agent.engine.adapters import AdapterRejected
from agent.work import Work, utcnow
from store import adapters
from store.adapters import AdapterCorrupt
from store.models import Adapter
from store.schema import AdapterStatus

log = structlog.get_logger(__name__)


async def reconcile(work: Work) -> None:
    """Load what is missing, and unload what nobody needs and nobody is using."""
    # The engine first: a candidate has its row before it is loaded, so none is taken for a stray.
    present = set(await work.engine.models()) - {work.model}
    with work.db.read() as session:
        wanted = {adapter.name: adapter for adapter in adapters.wanted(session)}
        candidates = {adapter.name for adapter in adapters.candidates(session)}
    for name in wanted.keys() - present:
        await _restore(work, wanted[name])
    for name in present - wanted.keys() - candidates:
        if work.inflight.count(name) == 0:
            await work.engine.unload_adapter(name)
            log.info("unloaded", adapter=name)


async def _restore(work: Work, adapter: Adapter) -> None:
    try:
        await loaded.load(
            work.engine, adapter.name, adapter.path, adapter.manifest_sha256, work.model
        )
        log.info("restored", adapter=adapter.name)
    except (AdapterRejected, AdapterCorrupt) as error:
        log.error("cannot restore", adapter=adapter.name, reason=str(error))
        if adapter.status is AdapterStatus.LIVE:
            with work.db.begin() as session:
                adapters.rollback(session, adapter.namespace, str(error), utcnow())
