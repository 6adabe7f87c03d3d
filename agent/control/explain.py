"""What an answer rested on, and what was learned from it: for the command line and over HTTP."""

from agent.control.schemas import Explanation, Learned
from store import lessons, snapshots
from store.db import Session
from store.models import Interaction


def explain(session: Session, row: Interaction) -> Explanation:
    """What stood in the prompt of an interaction, which version answered, what came of it."""
    snapshot = snapshots.get(session, row.context_hash, row.namespace)
    return Explanation(
        interaction=row.id,
        version=row.version,
        arm=row.arm,
        context=row.context_hash,
        system_prompt=snapshot.system_prompt if snapshot else None,
        lessons_in_prompt=[each["text"] for each in snapshot.lessons] if snapshot else None,
        tokens_saved=row.tokens_saved,
        learned=[
            Learned(id=each.id, status=each.status, text=lessons.text(each))
            for each in lessons.resting_on(session, row.id)
        ],
    )
