"""Relapses: an adapter that has learned a statement answers as if it had not.

A relapse is recorded in the transaction of the feedback that shows it, so the next request has the
statement in its prompt. It holds under the adapter that relapsed: a later one may internalise the
statement again, until it has relapsed under `statements.RELAPSE_LIMIT` of them.
"""

from collections.abc import Collection
from datetime import datetime

from store import adapters, lessons, namespaces, statements
from store.adapter_tables import AdapterStatement
from store.db import Session


def record(
    session: Session,
    namespace: str,
    rows: Collection[AdapterStatement],
    cause: str,
    interaction: str | None,
    now: datetime,
) -> list[AdapterStatement]:
    """Return statements to the prompt, if the live adapter has internalised them.

    Args:
        session: In the write transaction of the feedback.
        namespace: The namespace.
        rows: Statements of an adapter of the namespace. If it is not live, nothing changes.
        cause: What showed the relapse, as a sentence.
        interaction: The answer that showed it, if one did.
        now: The current time.

    Returns:
        The statements that returned to the prompt.
    """
    namespaces.bump_revision(session, namespace)  # locks out promotion and rollback until the end
    concerned = {(row.adapter, row.position) for row in rows}
    held = statements.internalised_rows(session, adapters.live(session, namespace))
    relapsed = [row for row in held if (row.adapter, row.position) in concerned]
    for row in relapsed:
        row.relapsed_at, row.relapse_cause, row.relapse_interaction = now, cause, interaction
    session.flush()
    lessons.sync_with_live_adapter(session, namespace)
    return relapsed
