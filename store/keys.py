"""API keys: who may call, on whose behalf, for what and how much.

Made and revoked by the operator, read by the gateway. Only a digest of the secret is here, keyed
with a pepper that is not in the database (agent/gateway/access/api_key.py), so that nobody can call
with what a copy of the database holds. Every change is in the audit log. A principal of no
namespace may act in all.
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
    """What a key is good for."""

    INFER = "infer"
    """Ask the model."""
    FEEDBACK = "feedback"
    """Say what answers were like: the principal's own, and with `read` any of the namespace."""
    READ = "read"
    """See interactions, lessons, runs, adapters."""
    ADMIN = "admin"
    """Change them, and keys: as the operator, whatever the trust in what is said with the key."""


class UnknownKey(Exception):
    """There is no such key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no key {key!r}: `byheart keys ls` shows those there are.")


class TrustConflict(Exception):
    """A principal is trusted more, or less, than a new key for it says."""

    def __init__(self, name: str, trust: Trust) -> None:
        super().__init__(
            f"There is a principal {name!r} already, and its words are {trust.value}'s. Give the "
            "key that trust, or another name."
        )


@dataclass(frozen=True)
class Limits:
    """How much a key may do; None where nothing limits it."""

    concurrent: int | None = None
    """Requests at once."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers, as the engine counts them."""


@dataclass(frozen=True)
class Grant:
    """What a key is for."""

    name: str
    """Of the principal on whose behalf it acts."""
    namespace: str | None
    """The only one it may act in; None for all."""
    trust: Trust
    """Of what the principal says."""
    scopes: frozenset[Scope]
    limits: Limits = Limits()
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Key:
    """A key as it is known, without its secret."""

    id: str
    digest: bytes
    principal: str
    """Identifier of the principal."""
    grant: Grant
    created_at: datetime
    revoked_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Whether it may be used."""
        expires_at = self.grant.expires_at
        return self.revoked_at is None and (expires_at is None or now < expires_at)


def create(
    session: Session, key_id: str, digest: bytes, grant: Grant, actor: str, now: datetime
) -> None:
    """Keep a new key, and its principal, where that is new too.

    Raises:
        UnknownNamespace: There is no such namespace.
        TrustConflict: The principal is there with another trust.
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
    """The identifier of the principal of that name in that namespace, which may be new."""
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
    """Let a key be of no use from now on; again changes nothing.

    Raises:
        UnknownKey: There is none of that identifier.
    """
    row = session.get(ApiKey, key_id, with_for_update=True)
    if row is None:
        raise UnknownKey(key_id)
    if row.revoked_at is None:
        row.revoked_at = now
        audit.append(session, actor, "key revoked", key_id, {}, now)


def keys(session: Session) -> list[Key]:
    """All keys, oldest first, also those that are no longer valid."""
    return [_key(*row) for row in session.execute(_rows().order_by(ApiKey.created_at, ApiKey.id))]


def page(
    session: Session, namespace: str | None, after: str | None, limit: int
) -> tuple[list[Key], str | None]:
    """A page of keys by identifier, of a namespace or, with None, of all; and the next `after`."""
    rows = _rows().order_by(ApiKey.id)
    if namespace is not None:
        rows = rows.where(Principal.namespace == namespace)
    if after is not None:
        rows = rows.where(ApiKey.id > after)
    found = [_key(*row) for row in session.execute(rows.limit(limit + 1))]
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def find(session: Session, key_id: str) -> Key | None:
    """The key of that identifier; None where there is none."""
    row = session.execute(_rows().where(ApiKey.id == key_id)).one_or_none()
    return _key(*row) if row else None


def _rows() -> Select[ApiKey, Principal]:
    return select(ApiKey, Principal).join(Principal, Principal.id == ApiKey.principal)


def count(session: Session) -> tuple[int, int]:
    """How many keys were ever made, and how many revoked; nothing else about a key changes."""
    made, revoked = session.execute(select(func.count(), func.count(ApiKey.revoked_at))).one()
    return made, revoked


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
