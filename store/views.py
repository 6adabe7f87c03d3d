"""Views: all that the gateway needs to know about a namespace to compose its next request.

Read in one transaction, cheap enough to read again whenever the namespace's revision moves. What
the live adapter has internalised is left out; after a rollback it is there again by itself.
"""

from dataclasses import dataclass

from sqlalchemy import bindparam, select

from store import lessons, namespaces, prompts
from store.contexts import Context
from store.db import Session
from store.models import Adapter, Alias, Namespace, Snapshot
from store.schema import AdapterStatus

BASE = "base"
"""The version that is no adapter: nothing is internalised."""
SELECTABLE = (AdapterStatus.LIVE, AdapterStatus.RETIRED)

# Built once: it is asked for with every request.
_REVISION = select(Namespace.revision).where(Namespace.name == bindparam("namespace"))


@dataclass(frozen=True)
class View:
    """A namespace's context at one revision."""

    namespace: str
    revision: int
    live: str | None
    """Name of the adapter that serves; None: the base."""
    context: Context
    """What has to stand in the prompt."""
    rendered: tuple[dict[str, str], ...]
    """The lessons in it, as a snapshot holds them."""
    snapshot: str
    """Hash of `context`, stamped on interactions."""
    registered: str | None
    """The registered system prompt, taken out of the client's own text where it begins with it."""
    saved_tokens: int
    """Tokens that are not in the prompt because the live adapter has internalised them."""
    saved_prompt_tokens: int
    """Of these, the registered system prompt's."""
    versions: tuple[str, ...]
    """Adapters that may be asked for by name: live once, and not rolled back; newest first."""


def revision(session: Session, namespace: str) -> int | None:
    """The namespace's revision: a view of an equal one need not be read again."""
    return session.scalar(_REVISION, {"namespace": namespace})


def read_view(
    session: Session, namespace: str, token_budget: int, version: str | None = None
) -> View | None:
    """The view of a namespace; None where there is no such namespace, or no such version in it.

    Args:
        session: In any transaction.
        namespace: Its name.
        token_budget: Most tokens of lessons in the prompt.
        version: An adapter of the namespace, or `BASE`; None for the one that is live.
    """
    row = session.get(Namespace, namespace)
    if row is None:
        return None
    try:
        live, snapshot = _serving(session, namespace, version)
    except LookupError:
        return None
    held = lessons.snapshot_texts(snapshot.lessons) if snapshot else frozenset()
    used = lessons.in_use(session, namespace)
    in_prompt = [lesson for lesson in used if lessons.text(lesson) not in held]
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
        versions=_proven(session, namespace),
    )


def _proven(session: Session, namespace: str) -> tuple[str, ...]:
    rows = select(Adapter.name).where(
        Adapter.namespace == namespace, Adapter.status.in_(SELECTABLE)
    )
    newest = rows.order_by(Adapter.created_at.desc(), Adapter.run.desc(), Adapter.name)
    return tuple(session.scalars(newest))


def _serving(
    session: Session, namespace: str, version: str | None
) -> tuple[str | None, Snapshot | None]:
    """The adapter of a version, and the context that it has internalised.

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
