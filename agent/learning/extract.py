"""The `extract` job: turns the feedback on one conversation into lessons.

How one piece of feedback becomes one lesson:

1. `find_corrections` (corrections.py) collects the corrections of wrong answers:
   demonstrations, comments, and user turns that contradict the answer before them.
2. `propose` (propose.py) asks the served model to restate the correction as a statement that is
   clear without the conversation. Code, never a model, checks that the statement says what the
   correction says (grounding.py). If the model fails, the correction's own words are used where
   possible: a demonstration verbatim, or the fact in a comment.
3. `_measure` counts the lesson's tokens and drops it if it exceeds the token budget of prompts.
4. `save` (curate.py) stores the lesson, or adds support to a lesson that says the same. The
   operator's lessons are active immediately; a user's wait until enough users agree.

A user turn that contradicts the live adapter also returns what the adapter should have known to the
prompt; feedback has done so when it came in (store/relapses.py).

The job can be repeated: a correction that has taught a lesson is not processed again, even if that
lesson was retired since.
"""

from collections.abc import Sequence
from typing import Any

import structlog

from agent.learning.corrections import Correction, find_corrections
from agent.learning.curate import SizedLesson, save
from agent.learning.extractors import ProposedLesson
from agent.learning.propose import log_fields, propose
from agent.runtime import Runtime
from store import conversations, interactions, lessons, relapses
from store.clock import utcnow
from store.db import Session

log = structlog.get_logger(__name__)


async def run(runtime: Runtime, payload: dict[str, Any]) -> None:
    """Extract the lessons of conversation `payload["conversation"]`."""
    conversation, settings = payload["conversation"], runtime.settings.learning
    with runtime.db.read() as session:
        entries = conversations.count_entries(session, conversation)
        turns = interactions.turns(session, conversation)
        corrections = [
            correction
            for correction in find_corrections(turns, settings.trust_turns)
            if not lessons.has_taught(session, correction.support)
        ]
    for correction in _select(corrections, settings.max_per_conversation):
        await _learn(runtime, payload["namespace"], correction)
    with runtime.db.begin() as session:
        # Only the entries that were read above: later ones are left for the next job.
        conversations.mark_read(session, conversation, entries)


def _select(corrections: Sequence[Correction], max_turns: int) -> list[Correction]:
    """Return all corrections from feedback, and the newest `max_turns` from user turns."""
    from_turns = [item for item in corrections if item.support.feedback is None]
    skipped = from_turns[:-max_turns]
    if skipped:
        log.warning("corrections skipped", count=len(skipped), limit=max_turns)
    return [correction for correction in corrections if correction not in skipped]


async def _learn(runtime: Runtime, namespace: str, correction: Correction) -> None:
    """Propose and save the lessons of one correction.

    Each correction has its own transaction, so that a failure loses only the corrections after it.
    """
    settings = runtime.settings.learning
    proposed = await propose(runtime.engine, runtime.model, correction, settings.extractor)
    sized = await _measure(runtime, proposed, correction)
    with runtime.db.begin() as session:
        if correction.support.feedback is None:
            _record_relapse(session, correction)
        saved = save(session, namespace, correction.support, sized, settings, utcnow())
    for lesson in saved:
        log.info("lesson saved", lesson=lesson.id, status=lesson.status, kind=lesson.kind)


def _record_relapse(session: Session, correction: Correction) -> None:
    answered = interactions.get(session, correction.answered)
    cause = f"{correction.support.principal} corrected the answer."
    if answered is not None:
        relapses.record_corrected(session, answered, correction.text, cause, utcnow())


async def _measure(
    runtime: Runtime, proposed: Sequence[ProposedLesson], correction: Correction
) -> list[SizedLesson]:
    """Return the lessons with their token counts, without those above the token budget."""
    sized = []
    for lesson in proposed:
        text = lessons.render(lesson.when, lesson.do)
        tokens = len(await runtime.engine.tokenize(text, runtime.model))
        if tokens <= runtime.settings.learning.token_budget:
            sized.append(SizedLesson(lesson, tokens))
        else:
            log.warning("lesson exceeds token budget", tokens=tokens, **log_fields(correction))
    return sized
