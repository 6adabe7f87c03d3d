"""Views: everything the gateway needs to compose a namespace's next request.

A view is read in one transaction, cheaply enough to re-read whenever the namespace's revision
changes. It leaves out what the live adapter has internalised; after a rollback that text is back in
the next view.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, select

from store import lessons, namespaces, prompts
from store.adapter_tables import Adapter, Alias
from store.contexts import Context
from store.db import Session
from store.models import Namespace, Snapshot
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
    """What the prompt must contain."""
    rendered: tuple[dict[str, str], ...]
    """Its lessons, in a snapshot's format."""
    snapshot: str
    """Hash of `context`, stamped on interactions."""
    registered: str | None
    """The registered system prompt, removed from client system text that starts with it."""
    saved_tokens: int
    """Tokens left out of the prompt because the live adapter has internalised them."""
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
        live, snapshot = _serving(session, namespace, version)
    except LookupError:
        return None
    internalised = lessons.snapshot_texts(snapshot.lessons) if snapshot else frozenset()
    used = lessons.in_use(session, namespace)
    in_prompt = [lesson for lesson in used if lessons.text(lesson) not in internalised]
    registered = prompts.system_prompt(session, namespace)
    has_prompt = registered and snapshot and snapshot.system_prompt == registered.text
    saved_prompt = registered.tokens if registered and has_prompt else 0
    saved = [lesson.tokens for lesson in lessons.fit(used, token_budget) if lesson not in in_prompt]
    fitting = lessons.fit(in_prompt, token_budget)
    context = Context(
        registered.text if registered and not has_prompt else None,
        tuple(map(lessons.text, fitting)),
    )
    return View(
        namespace=namespace,
        revision=row.revision,
        live=live,
        context=context,
        rendered=tuple(lessons.rendered(fitting)),
        snapshot=context.hash,
        registered=registered.text if registered else None,
        saved_tokens=sum(saved) + saved_prompt,
        saved_prompt_tokens=saved_prompt,
        versions=_selectable(session, namespace),
    )


def _selectable(session: Session, namespace: str) -> tuple[str, ...]:
    rows = select(Adapter.name).where(
        Adapter.namespace == namespace, Adapter.status.in_(SELECTABLE)
    )
    newest = rows.order_by(Adapter.created_at.desc(), Adapter.run.desc(), Adapter.name)
    return tuple(session.scalars(newest))


def _serving(
    session: Session, namespace: str, version: str | None
) -> tuple[str | None, Snapshot | None]:
    """Return the adapter of a version, and the snapshot it has internalised.

    Raises:
        LookupError: The namespace has no such adapter.
    """
    if version is None:
        alias = session.get(Alias, namespace)
        snapshot = namespaces.internalised_snapshot(session, namespace)
        return (alias.adapter if alias else None), snapshot
    if version == BASE:
        return None, None
    adapter = session.get(Adapter, version)
    if adapter is None or adapter.namespace != namespace:
        raise LookupError(version)
    return version, session.get(Snapshot, (adapter.snapshot, namespace))
