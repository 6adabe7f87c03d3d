"""Relapses: an adapter that has learned a statement answers as if it had not.

A relapse is recorded in the transaction of the feedback that shows it, so the next request has the
statement in its prompt. It holds under the adapter that relapsed: a later one may internalise the
statement again, until it has relapsed under `statements.RELAPSE_LIMIT` of them.

Feedback of any trust shows a relapse, because nothing gets into a prompt that was not approved for
it before.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select

from store import adapters, interactions, lessons, namespaces, statements, verdicts
from store.adapter_tables import Adapter, AdapterStatement, Run
from store.contexts import Message, last_user_text
from store.db import Session
from store.models import Conversation, Feedback, Interaction, Lesson, Payload
from store.schema import InteractionStatus
from store.text.concern import Exchange, contradicted, corrected, has_terms


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


def record_shown(
    session: Session, answered: Interaction, given: Feedback, now: datetime
) -> list[AdapterStatement]:
    """Return to the prompt what feedback on an answer shows that the adapter does not know.

    As `record_corrected`; praise shows nothing, and a bad rating counts also without a text.
    """
    correction, is_bad = verdicts.correction(given), verdicts.is_bad(given)
    if verdicts.is_good(given) or not (correction or is_bad):
        return []
    did = "corrected the answer" if correction else "rated the answer as bad"
    cause = f"{given.principal} {did}."
    return record_corrected(session, answered, correction, cause, now, is_bad=is_bad)


def record_corrected(
    session: Session,
    answered: Interaction,
    correction: str,
    cause: str,
    now: datetime,
    *,
    is_bad: bool = False,
) -> list[AdapterStatement]:
    """Return to the prompt what the correction of an answer shows that the adapter does not know.

    Args:
        session: In a write transaction, that of the feedback if there is any.
        answered: The interaction. If another version than the live one answered, or the request
            failed, nothing changes.
        correction: The text that corrects the answer; may be empty.
        cause: As for `record`.
        now: The current time.
        is_bad: Whether the answer is rated as bad, so that a correction without numbers and names
            may concern what the answer contradicts.

    Returns:
        The statements that returned to the prompt.
    """
    live = adapters.live(session, answered.namespace)
    if live is None or answered.version != live.name:
        return []
    if answered.status is InteractionStatus.FAILED:
        return []
    known, exchange = _known(session, live), _exchange(session, answered)
    concerned = corrected(known, exchange, correction)
    if is_bad and not concerned and not has_terms(correction):
        concerned = contradicted(known, exchange)
    rows = [row for row in statements.of(session, live) if row.text in concerned]
    return record(session, answered.namespace, rows, cause, answered.id, now) if rows else []


def record_lesson(
    session: Session, lesson: Lesson, cause: str, interaction: str | None, now: datetime
) -> list[AdapterStatement]:
    """Return a lesson to the prompt, if the live adapter has internalised it; as `record`."""
    live = adapters.live(session, lesson.namespace)
    rows = statements.of(session, live) if live else []
    own = [row for row in rows if row.text == lessons.text(lesson)]
    return record(session, lesson.namespace, own, cause, interaction, now) if own else []


def since_live(session: Session, namespace: str) -> frozenset[str]:
    """Return the statements that have relapsed since the live adapter's run was opened.

    Without a live adapter, all that ever have. Statements that no adapter learns are left out.
    """
    live = adapters.live(session, namespace)
    opened_at = session.get_one(Run, live.run).created_at if live else None
    relapsed = statements.relapsed_since(session, namespace, opened_at)
    return relapsed - statements.unlearnable(session, namespace)


def failed_prompts(session: Session, namespace: str, texts: Collection[str]) -> list[list[Message]]:
    """Return the prompts whose answers made statements relapse and that may be trained on.

    Newest first, without prompts with tools.
    """
    rows = (
        select(Payload.messages, Payload.params)
        .join(Interaction, Interaction.id == Payload.interaction)
        .join(Conversation, Conversation.id == Interaction.conversation)
        .where(
            Interaction.namespace == namespace,
            Interaction.learn,
            ~Conversation.held_out,
            Interaction.id.in_(
                select(AdapterStatement.relapse_interaction).where(AdapterStatement.text.in_(texts))
            ),
        )
        .order_by(Interaction.created_at.desc(), Interaction.id.desc())
    )
    return [
        messages
        for messages, params in session.execute(rows)
        if not interactions.has_tools(messages, params)
    ]


def _exchange(session: Session, answered: Interaction) -> Exchange:
    """Return the question and the answer; empty if retention has deleted them."""
    texts = interactions.payload(session, answered.id)
    return (
        Exchange.of(last_user_text(texts.messages), texts.response) if texts else Exchange("", "")
    )


def _known(session: Session, live: Adapter) -> dict[str, list[str]]:
    """Return what an answer can rest on, each statement with the questions that measured it."""
    measured = adapters.evaluation(session, live.name).measured
    questions = {
        each["text"]: [question["prompt"] for question in each.get("questions", ())]
        for each in measured.get("statements", ())
    }
    texts = [row.text for row in statements.of(session, live)]
    texts += map(lessons.text, lessons.in_use(session, live.namespace))
    return {text: questions.get(text, []) for text in texts}
