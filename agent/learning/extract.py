"""The `extract` job: from one conversation to stored lessons.

1. Find the corrections in the conversation (corrections.py) that have taught nothing yet.
2. Ask the served model to state each as standalone lessons and keep what is grounded in the
   conversation's own text; a demonstration whose extraction fails becomes a lesson as it stands
   (propose.py).
3. Store them, merged with what the namespace knows (curate.py), and mark the conversation.

Running it twice adds nothing: a correction that supports a lesson, whatever became of that lesson,
is not read again.
"""

from collections.abc import Sequence
from typing import Any

import structlog

from agent.learning import curate
from agent.learning.corrections import Correction, find_corrections
from agent.learning.curate import SizedLesson
from agent.learning.propose import origin, propose
from agent.runtime import Runtime
from store import conversations, interactions, lessons
from store.clock import utcnow

log = structlog.get_logger(__name__)


async def run(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Extract the lessons of conversation `payload["conversation"]`."""
    conversation, settings = payload["conversation"], runtime.settings.learning
    with runtime.db.read() as session:
        signals = conversations.signals(session, conversation)
        turns = interactions.turns(session, conversation)
        found = find_corrections(turns, settings.trust_turns)
        new = [one for one in found if not lessons.has_taught(session, one.support)]
    for correction in _chosen(new, settings.max_per_conversation):
        await _learn(runtime, payload["namespace"], correction)
    with runtime.db.begin() as session:
        # Those of the reading: what came since is read the next time.
        conversations.mark_read(session, conversation, signals)


def _chosen(corrections: Sequence[Correction], most: int) -> list[Correction]:
    """All that was sent as feedback, and the newest `most` of what users said in a next turn."""
    others = [one for one in corrections if one.support.feedback is None]
    left_out = others[:-most]
    if left_out:
        log.warning("corrections left out", count=len(left_out), most=most)
    return [one for one in corrections if one not in left_out]


async def _learn(runtime: Runtime, namespace: str, correction: Correction) -> None:
    """State and store what one correction teaches; at once, so that a later failure costs less."""
    settings = runtime.settings.learning
    stated = []
    for proposed in await propose(runtime.engine, runtime.model, correction, settings.extractor):
        said = lessons.render(proposed.when, proposed.do)
        tokens = len(await runtime.engine.tokenize(said, runtime.model))
        if tokens > settings.token_budget:
            log.warning("lesson too long for any prompt", tokens=tokens, **origin(correction))
            continue
        stated.append(SizedLesson(proposed, tokens))
    with runtime.db.begin() as session:
        kept = curate.keep(session, namespace, correction.support, stated, settings, utcnow())
    for lesson in kept:
        log.info("lesson kept", lesson=lesson.id, status=lesson.status, kind=lesson.kind)
