"""Lessons, their origins, and whether each is in the prompt or in the weights.

Extraction and the operator add lessons; the view puts active ones into prompts; promotion and
rollback move them between prompt and weights. Invariants others rely on:
- the text of a lesson never changes: an edit makes a new row that supersedes the old one;
- among lessons in use, exactly those whose text the live adapter has internalised
  (`statements.internalised`) are internalised, and the rest are active.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from store import adapters, namespaces, statements
from store.db import Session, new_id
from store.models import Lesson, LessonSupport, Snapshot
from store.schema import IllegalTransition as IllegalTransition
from store.schema import LessonKind, LessonStatus, Trust, storable
from store.text.similarity import statement_similarity

IN_USE = (LessonStatus.ACTIVE, LessonStatus.INTERNALISED)

TRANSITIONS: dict[LessonStatus, tuple[LessonStatus, ...]] = {
    LessonStatus.CANDIDATE: (LessonStatus.ACTIVE, LessonStatus.QUARANTINED, LessonStatus.RETIRED),
    LessonStatus.ACTIVE: (LessonStatus.QUARANTINED, LessonStatus.RETIRED),
    LessonStatus.INTERNALISED: (LessonStatus.QUARANTINED, LessonStatus.RETIRED),
    LessonStatus.QUARANTINED: (LessonStatus.CANDIDATE, LessonStatus.ACTIVE, LessonStatus.RETIRED),
    LessonStatus.RETIRED: (),
}
"""What may be asked for. Between active and internalised only the live adapter decides."""


@dataclass(frozen=True)
class Support:
    """One origin of a lesson."""

    interaction: str | None
    feedback: str | None
    span: str
    principal: str
    trust: Trust


def add(  # noqa: PLR0913 - all columns of a lesson
    session: Session,
    namespace: str,
    *,
    kind: LessonKind,
    do: str,
    when: str | None = None,
    why: str | None = None,
    trust: Trust,
    tokens: int,
    support: Sequence[Support],
    status: LessonStatus = LessonStatus.ACTIVE,
    now: datetime,
    pinned: bool = False,
    expires_at: datetime | None = None,
    supersedes: str | None = None,
) -> Lesson:
    """Add a lesson with its origins.

    Raises:
        UnknownNamespace: There is no such namespace.
    """
    namespaces.bump_revision(session, namespace)
    lesson = Lesson(
        id=new_id("les"),
        namespace=namespace,
        kind=kind,
        when=storable(when) if when else None,
        do=storable(do),
        why=why,
        trust=trust,
        tokens=tokens,
        pinned=pinned,
        created_at=now,
        expires_at=expires_at,
        supersedes=supersedes,
    )
    lesson.status = _placed(session, lesson, status)
    session.add(lesson)
    session.flush()
    for one in support:
        add_support(session, lesson, one)
    return lesson


def text(lesson: Lesson) -> str:
    """Return the text of a lesson as prompts contain it."""
    return render(lesson.when, lesson.do)


def render(when: str | None, do: str) -> str:
    """Join a condition and an instruction into one sentence."""
    return f"When {when}: {do}" if when else do


def rendered(ordered: Sequence[Lesson]) -> list[dict[str, str]]:
    """Return lessons in the form that a snapshot stores."""
    return [{"id": each.id, "kind": each.kind.value, "text": text(each)} for each in ordered]


def get(session: Session, lesson_id: str) -> Lesson | None:
    """The lesson of that id."""
    return session.get(Lesson, lesson_id)


def listing(
    session: Session, namespace: str, statuses: Collection[LessonStatus] = ()
) -> list[Lesson]:
    """Lessons of a namespace, oldest first; without `statuses`, all."""
    rows = select(Lesson).where(Lesson.namespace == namespace)
    if statuses:
        rows = rows.where(Lesson.status.in_(statuses))
    return list(session.scalars(rows.order_by(Lesson.created_at, Lesson.id)))


def in_use(session: Session, namespace: str) -> list[Lesson]:
    """Return the lessons in use in prompt order: pinned, then most trusted, then oldest."""
    return sorted(
        listing(session, namespace, IN_USE),
        key=lambda lesson: (not lesson.pinned, lesson.trust.rank, lesson.created_at, lesson.id),
    )


def fit(ordered: Sequence[Lesson], token_budget: int) -> list[Lesson]:
    """Return the lessons that fit the budget, in the order given: pinned ones, then the newest."""
    kept, left = set(), token_budget
    for lesson in sorted(ordered, key=_urgency, reverse=True):
        if lesson.tokens <= left:
            kept.add(lesson.id)
            left -= lesson.tokens
    return [lesson for lesson in ordered if lesson.id in kept]


def _urgency(lesson: Lesson) -> tuple[bool, datetime, str]:
    return (lesson.pinned, lesson.created_at, lesson.id)


def set_status(session: Session, lesson: Lesson, status: LessonStatus) -> None:
    """Change a lesson's status; `active` becomes `internalised` if the live adapter has learned it.

    Raises:
        IllegalTransition: The lesson cannot change to that status.
    """
    namespaces.bump_revision(session, lesson.namespace)
    session.refresh(lesson)
    if status not in TRANSITIONS[lesson.status]:
        legal = ", ".join(TRANSITIONS[lesson.status]) or "nothing else: add it anew"
        remedy = f"It can become {legal}."
        raise IllegalTransition(f"Lesson {lesson.id}", lesson.status, status, remedy)
    lesson.status = _placed(session, lesson, status)
    session.flush()


def sync_with_live_adapter(session: Session, namespace: str) -> None:
    """Mark each lesson in use as internalised or active, by what the live adapter has learned."""
    learned = statements.internalised(session, adapters.live(session, namespace))
    for lesson in listing(session, namespace, IN_USE):
        in_weights = text(lesson) in learned
        lesson.status = LessonStatus.INTERNALISED if in_weights else LessonStatus.ACTIVE
    session.flush()


def snapshot_texts(rendered: Sequence[dict[str, str]]) -> frozenset[str]:
    """The lesson texts of a snapshot. A lesson is trained on as text, whatever its id."""
    return frozenset(lesson["text"] for lesson in rendered)


def texts_no_longer_used(session: Session, snapshot: Snapshot) -> list[str]:
    """Return the texts in a snapshot that no lesson in use has, such as a retired lesson's."""
    used = {text(lesson) for lesson in in_use(session, snapshot.namespace)}
    return [each["text"] for each in snapshot.lessons if each["text"] not in used]


def find_duplicate(
    session: Session,
    namespace: str,
    text: str,
    ratio: float,
    statuses: Collection[LessonStatus] = (*IN_USE, LessonStatus.CANDIDATE),
) -> Lesson | None:
    """Return the most similar lesson of those statuses; None if none reaches `ratio`."""
    rows = listing(session, namespace, statuses)
    scored = [(statement_similarity(text, render(row.when, row.do)), row) for row in rows]
    alike = [(score, lesson) for score, lesson in scored if score > 0 and score >= ratio]
    return max(alike, key=lambda pair: pair[0])[1] if alike else None


def add_support(session: Session, lesson: Lesson, support: Support) -> bool:
    """Add an origin to a lesson; return False if the lesson already has it."""
    namespaces.lock(session, lesson.namespace)  # positions are given one after another
    known = supports(session, lesson)
    if any(_origin(row) == _origin(support) for row in known):
        return False
    session.add(
        LessonSupport(
            lesson=lesson.id,
            position=max((row.position for row in known), default=-1) + 1,
            interaction=support.interaction,
            feedback=support.feedback,
            span=storable(support.span),
            principal=support.principal,
            trust=support.trust,
        )
    )
    session.flush()
    return True


def has_taught(session: Session, origin: Support) -> bool:
    """Return whether a lesson of any status cites this interaction or feedback."""
    rows = select(LessonSupport.lesson).where(
        LessonSupport.interaction == origin.interaction,
        LessonSupport.feedback.is_not_distinct_from(origin.feedback),
    )
    return session.scalar(rows.limit(1)) is not None


def resting_on(session: Session, interaction: str) -> list[Lesson]:
    """The lessons that an interaction supports, oldest first."""
    rows = select(Lesson).join(LessonSupport, LessonSupport.lesson == Lesson.id)
    rows = rows.where(LessonSupport.interaction == interaction).order_by(Lesson.id).distinct()
    return list(session.scalars(rows))


def supports(session: Session, lesson: Lesson) -> list[LessonSupport]:
    """Return the origins of a lesson, oldest first."""
    rows = select(LessonSupport).where(LessonSupport.lesson == lesson.id)
    return list(session.scalars(rows.order_by(LessonSupport.position)))


def principals(session: Session, lesson: Lesson) -> set[str]:
    """Return the independent principals that support a lesson.

    A caller does not count besides its own end users, since it may speak for one of them.
    """
    rows = select(LessonSupport.principal).where(
        LessonSupport.lesson == lesson.id, LessonSupport.polarity > 0
    )
    found = set(session.scalars(rows))
    return {one for one in found if not any(other.startswith(f"{one}/") for other in found)}


def edit(session: Session, lesson: Lesson, do: str, now: datetime, tokens: int) -> Lesson:
    """Replace a lesson by a new row with the operator's text and the same origins.

    If the live adapter has learned the old text, the new one is in the prompt until the next run.

    Raises:
        IllegalTransition: The lesson is retired.
    """
    status = lesson.status
    set_status(session, lesson, LessonStatus.RETIRED)
    origins = [
        Support(row.interaction, row.feedback, row.span, row.principal, row.trust)
        for row in supports(session, lesson)
    ]
    return add(
        session,
        lesson.namespace,
        kind=lesson.kind,
        do=do,
        when=lesson.when,
        why=lesson.why,
        trust=Trust.OPERATOR,
        tokens=tokens,
        support=origins,
        status=LessonStatus.ACTIVE if status in IN_USE else status,
        now=now,
        pinned=lesson.pinned,
        expires_at=lesson.expires_at,
        supersedes=lesson.id,
    )


def count_active(session: Session, namespace: str) -> int:
    """Return the number of active lessons."""
    count = select(func.count()).where(
        Lesson.namespace == namespace, Lesson.status == LessonStatus.ACTIVE
    )
    return session.scalar(count) or 0


def _placed(session: Session, lesson: Lesson, status: LessonStatus) -> LessonStatus:
    """`status`, or internalised instead of active where the live adapter has learned the text."""
    if status not in IN_USE:
        return status
    learned = statements.internalised(session, adapters.live(session, lesson.namespace))
    return LessonStatus.INTERNALISED if text(lesson) in learned else LessonStatus.ACTIVE


def _origin(support: Support | LessonSupport) -> tuple[str | None, str | None, str, str]:
    return (support.interaction, support.feedback, storable(support.span), support.principal)
