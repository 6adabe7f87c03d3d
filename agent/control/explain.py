"""Explains an answer, for the command line and the control API."""

from agent.control.knowledge_schemas import Explanation, Learned, Relapse
from store import knowledge, lessons, snapshots
from store.db import Session
from store.models import Interaction


def explain(session: Session, row: Interaction) -> Explanation:
    """Return the version and context that an answer was based on, and what was learned from it."""
    snapshot = snapshots.get(session, row.context_hash, row.namespace)
    return Explanation(
        interaction=row.id,
        version=row.version,
        arm=row.arm,
        context=row.context_hash,
        system_prompt=snapshot.system_prompt if snapshot else None,
        lessons_in_prompt=[lesson["text"] for lesson in snapshot.lessons] if snapshot else None,
        internalised=knowledge.internalised_at(session, row),
        tokens_saved=row.tokens_saved,
        relapses=[Relapse.model_validate(each) for each in knowledge.relapses_of(session, row)],
        learned=[
            Learned(id=lesson.id, status=lesson.status, text=lessons.text(lesson))
            for lesson in lessons.resting_on(session, row.id)
        ],
    )
