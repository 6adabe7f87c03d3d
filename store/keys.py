"""API keys: the principal each key acts for, its scopes and its rate limits.

The operator creates and revokes keys; the gateway reads them. Only a digest of each secret is
stored, keyed with a pepper that is not in the database (agent/gateway/access/api_key.py), so a
stolen copy of the database gives no access. Every change is in the audit log. A principal without
a namespace may act in all of them.
"""

import enum
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Select, func, select

from store import audit, namespaces
from store.db import Session, new_id
from store.operations import ApiKey, Principal
from store.schema import Trust, storable


class Scope(enum.StrEnum):
    """What a key permits."""

    INFER = "infer"
    """Send inference requests."""
    FEEDBACK = "feedback"
    """Rate answers to the principal's own requests or, with `read`, to any in the namespace."""
    READ = "read"
    """Read interactions, lessons, runs and adapters."""
    ADMIN = "admin"
    """Change them and manage keys, with the operator's rights regardless of the key's trust."""


class UnknownKey(Exception):
    """There is no such key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no key {key!r}: `byheart keys ls` lists them.")


class TrustConflict(Exception):
    """The principal exists with a different trust level than the new key specifies."""

    def __init__(self, name: str, trust: Trust) -> None:
        super().__init__(
            f"Principal {name!r} exists with trust {trust.value!r}. Create the key with "
            "that trust, or for another name."
        )


@dataclass(frozen=True)
class Limits:
    """Rate limits of a key; None means unlimited."""

    concurrent: int | None = None
    """Concurrent requests."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and completion tokens, as the engine counts them."""


@dataclass(frozen=True)
class Grant:
    """The principal, scopes and limits of a key."""

    name: str
    """Name of the principal that the key acts for."""
    namespace: str | None
    """The only namespace it may act in; None for all."""
    trust: Trust
    """Trust in the principal's messages and feedback."""
    scopes: frozenset[Scope]
    limits: Limits = Limits()
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Key:
    """A stored key, without its secret."""

    id: str
    digest: bytes
    principal: str
    """Id of the principal."""
    grant: Grant
    created_at: datetime
    revoked_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Return whether the key is neither revoked nor expired."""
        expires_at = self.grant.expires_at
        return self.revoked_at is None and (expires_at is None or now < expires_at)


def create(
    session: Session, key_id: str, digest: bytes, grant: Grant, actor: str, now: datetime
) -> None:
    """Store a new key and, if it does not exist yet, its principal.

    Raises:
        UnknownNamespace: There is no such namespace.
        TrustConflict: The principal exists with a different trust level.
    """
    if grant.namespace is not None:
        namespaces.require(session, grant.namespace)
    row = ApiKey(
        id=key_id,
        principal=_principal(session, grant, now),
        digest=digest,
        scopes=sorted(grant.scopes),
        concurrent=grant.limits.concurrent,
        requests_per_minute=grant.limits.requests_per_minute,
        tokens_per_minute=grant.limits.tokens_per_minute,
        created_at=now,
        expires_at=grant.expires_at,
    )
    session.add(row)
    detail = {
        "principal": grant.name,
        "namespace": grant.namespace,
        "scopes": row.scopes,
        "trust": grant.trust,
        "limits": asdict(grant.limits),
        "expires_at": grant.expires_at.isoformat() if grant.expires_at else None,
    }
    audit.append(session, actor, "key created", key_id, detail, now)


def _principal(session: Session, grant: Grant, now: datetime) -> str:
    """Return the id of the grant's principal, creating it if needed."""
    name = storable(grant.name)
    same = select(Principal).where(
        Principal.name == name, Principal.namespace.is_not_distinct_from(grant.namespace)
    )
    row = session.scalar(same.order_by(Principal.id).limit(1))
    if row is None:
        row = Principal(
            id=new_id("pri"),
            namespace=grant.namespace,
            name=name,
            trust=grant.trust,
            created_at=now,
        )
        session.add(row)
        session.flush()
    if row.trust != grant.trust:
        raise TrustConflict(grant.name, row.trust)
    return row.id


def revoke(session: Session, key_id: str, actor: str, now: datetime) -> None:
    """Revoke a key; idempotent.

    Raises:
        UnknownKey: There is no key with that id.
    """
    row = session.get(ApiKey, key_id, with_for_update=True)
    if row is None:
        raise UnknownKey(key_id)
    if row.revoked_at is None:
        row.revoked_at = now
        audit.append(session, actor, "key revoked", key_id, {}, now)


def keys(session: Session) -> list[Key]:
    """Return all keys, oldest first, including revoked and expired ones."""
    return [_key(*row) for row in session.execute(_rows().order_by(ApiKey.created_at, ApiKey.id))]


def page(
    session: Session, namespace: str | None, after: str | None, limit: int
) -> tuple[list[Key], str | None]:
    """Return a page of keys ordered by id, of one namespace or all (None), and the next `after`."""
    rows = _rows().order_by(ApiKey.id)
    if namespace is not None:
        rows = rows.where(Principal.namespace == namespace)
    if after is not None:
        rows = rows.where(ApiKey.id > after)
    selected = [_key(*row) for row in session.execute(rows.limit(limit + 1))]
    has_more = len(selected) > limit
    return selected[:limit], selected[limit - 1].id if has_more else None


def find(session: Session, key_id: str) -> Key | None:
    """Return the key with that id, or None."""
    row = session.execute(_rows().where(ApiKey.id == key_id)).one_or_none()
    return _key(*row) if row else None


def _rows() -> Select[ApiKey, Principal]:
    return select(ApiKey, Principal).join(Principal, Principal.id == ApiKey.principal)


def count(session: Session) -> tuple[int, int]:
    """Return the numbers of keys created and revoked; keys change in no other way."""
    created, revoked = session.execute(select(func.count(), func.count(ApiKey.revoked_at))).one()
    return created, revoked


def _key(row: ApiKey, principal: Principal) -> Key:
    grant = Grant(
        name=principal.name,
        namespace=principal.namespace,
        trust=principal.trust,
        scopes=frozenset(map(Scope, row.scopes)),
        limits=Limits(row.concurrent, row.requests_per_minute, row.tokens_per_minute),
        expires_at=row.expires_at,
    )
    return Key(row.id, row.digest, principal.id, grant, row.created_at, row.revoked_at)
