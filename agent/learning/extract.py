"""The `extract` job: from one conversation to stored lessons.

1. Find the corrections in the conversation (corrections.py).
2. Ask the served model to state each as standalone lessons and keep what is grounded in the
   conversation's own text; a demonstration whose extraction fails becomes a lesson as it stands
   (propose.py).
3. Store them, merged with what the namespace knows (curate.py), and mark the conversation.

Running it twice adds nothing: what is known only gains support, once for each origin.
"""

from typing import Any

import structlog

from agent.learning import curate
from agent.learning.corrections import Correction, find_corrections
from agent.learning.curate import Stated
from agent.learning.propose import Proposed, propose
from agent.work import Work, utcnow
from store import conversations, interactions, lessons

log = structlog.get_logger(__name__)


async def run(work: Work, payload: dict[str, Any]) -> None:
    """Extract the lessons of conversation `payload["conversation"]`."""
    conversation = payload["conversation"]
    with work.db.read() as session:
        signals = conversations.signals(session, conversation)
        turns = interactions.turns(session, conversation)
    settings = work.settings.learning
    found: list[tuple[Correction, Proposed]] = []
    for correction in find_corrections(turns):
        proposed = await propose(work.engine, work.model, correction, settings.extractor)
        found += [(correction, lesson) for lesson in proposed]
    await _store(work, payload["namespace"], found[: settings.max_per_conversation])
    with work.db.begin() as session:
        # Those of the reading: what came since is read the next time.
        conversations.mark_read(session, conversation, signals)


async def _store(work: Work, namespace: str, found: list[tuple[Correction, Proposed]]) -> None:
    for correction, proposed in found:
        said = lessons.render(proposed.when, proposed.do)
        tokens = len(await work.engine.tokenize(said, work.model))
        with work.db.begin() as session:
            stated = Stated(proposed, correction.support, tokens)
            lesson = curate.keep(session, namespace, stated, work.settings.learning, utcnow())
        log.info("lesson kept", lesson=lesson.id, status=lesson.status, kind=lesson.kind)
