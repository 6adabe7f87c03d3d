"""Views: everything the gateway needs to compose a namespace's next request.

A view is read in one transaction, cheaply enough to re-read whenever the namespace's revision
changes. It leaves out what its adapter has internalised, statement by statement; after a rollback
or a relapse that text is back in the next view.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, select

from store import adapters, lessons, prompts, statements
from store.adapter_tables import Adapter
from store.contexts import Context
from store.db import Session
from store.models import Namespace, Snapshot, SystemPrompt
from store.residual import residual_text, residual_tokens
from store.schema import AdapterStatus

BASE = "base"
"""The version name of the base model, which has internalised nothing."""
SELECTABLE = (AdapterStatus.LIVE, AdapterStatus.RETIRED)

# Built once, because it is executed for every request.
_REVISION = select(Namespace.revision).where(Namespace.name == bindparam("namespace"))


@dataclass(frozen=True)
class View:
    """A namespace's context at one revision."""

    namespace: str
    revision: int
    live: str | None
    """Name of the adapter that serves; None for the base."""
    context: Context
    """What the prompt must contain: the residual context of the adapter that answers."""
    rendered: tuple[dict[str, str], ...]
    """Its lessons, in a snapshot's format."""
    snapshot: str
    """Hash of `context`, stamped on interactions."""
    registered: str | None
    """The whole registered system prompt, removed from client system text that starts with it."""
    saved_tokens: int
    """Tokens left out of the prompt because the adapter has internalised them."""
    saved_prompt_tokens: int
    """The part of `saved_tokens` that the registered system prompt accounts for."""
    versions: tuple[str, ...]
    """Adapters that a request may name: live or formerly live, not rolled back; newest first."""


def revision(session: Session, namespace: str) -> int | None:
    """Return the namespace's revision; a view with the same revision is current."""
    return session.scalar(_REVISION, {"namespace": namespace})


def read_view(
    session: Session, namespace: str, token_budget: int, version: str | None = None
) -> View | None:
    """Return the view of a namespace; None if the namespace or its version does not exist.

    Args:
        session: In any transaction.
        namespace: The namespace's name.
        token_budget: The maximum tokens of lessons in the prompt.
        version: An adapter of the namespace, or `BASE`; None for the live adapter.
    """
    row = session.get(Namespace, namespace)
    if row is None:
        return None
    try:
        adapter = _version(session, namespace, version)
    except LookupError:
        return None
    internalised = statements.internalised(session, adapter)
    used = lessons.in_use(session, namespace)
    in_prompt = [lesson for lesson in used if lessons.text(lesson) not in internalised]
    saved = [lesson.tokens for lesson in lessons.fit(used, token_budget) if lesson not in in_prompt]
    fitting = lessons.fit(in_prompt, token_budget)
    registered = prompts.system_prompt(session, namespace)
    residual, saved_prompt = _residual(session, registered, adapter) if registered else ("", 0)
    context = Context(residual or None, tuple(map(lessons.text, fitting)))
    return View(
        namespace=namespace,
        revision=row.revision,
        live=adapter.name if adapter else None,
        context=context,
        rendered=tuple(lessons.rendered(fitting)),
        snapshot=context.hash,
        registered=registered.text if registered else None,
        saved_tokens=sum(saved) + saved_prompt,
        saved_prompt_tokens=saved_prompt,
        versions=_selectable(session, namespace),
    )


def _residual(
    session: Session, registered: SystemPrompt, adapter: Adapter | None
) -> tuple[str, int]:
    """Return what is left of the registered system prompt, and how many tokens that saves."""
    snapshot = session.get(Snapshot, (adapter.snapshot, adapter.namespace)) if adapter else None
    if not adapter or not snapshot or snapshot.system_prompt != registered.text:
        return registered.text, 0
    kept = statements.residual_segments(session, adapter)
    left = registered.text if kept is None else residual_text(registered.text, kept)
    if kept is None or left == registered.text:
        return registered.text, 0
    return left, max(registered.tokens - residual_tokens(registered.text, kept), 0)


def _selectable(session: Session, namespace: str) -> tuple[str, ...]:
    rows = select(Adapter.name).where(
        Adapter.namespace == namespace, Adapter.status.in_(SELECTABLE)
    )
    newest = rows.order_by(Adapter.created_at.desc(), Adapter.run.desc(), Adapter.name)
    return tuple(session.scalars(newest))


def _version(session: Session, namespace: str, version: str | None) -> Adapter | None:
    """Return the adapter of a version; None for the base.

    Raises:
        LookupError: The namespace has no such adapter.
    """
    if version is None:
        return adapters.live(session, namespace)
    if version == BASE:
        return None
    adapter = session.get(Adapter, version)
    if adapter is None or adapter.namespace != namespace:
        raise LookupError(version)
    return adapter
