"""Keys, the audit log, and what internalising has saved."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from agent.admin.api.control import (
    PAGE,
    Asking,
    Control,
    Limit,
    Parts,
    Reading,
    Writing,
    everywhere,
    found,
    page,
)
from agent.gateway.auth import Caller
from agent.keys import make
from store import audit, keys, search
from store.db import Session
from store.keys import Grant, Key, Limits, Scope
from store.schema import Trust

router = APIRouter(tags=["operations"])
Ceiling = Annotated[int, Field(gt=0, le=2**31 - 1)]


class NewKey(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"\S")]
    scopes: Annotated[list[Scope], Field(min_length=1)] = [Scope.INFER, Scope.FEEDBACK]
    trust: Literal[Trust.OPERATOR, Trust.USER] = Trust.USER
    expires_at: AwareDatetime | None = None
    concurrent: Ceiling | None = None
    requests_per_minute: Ceiling | None = None
    tokens_per_minute: Ceiling | None = None


@router.get("/keys")
def list_keys(session: Reading, parts: Parts, caller: Asking) -> dict[str, Any]:
    """The keys of the namespace, without their secrets."""
    rows = [_key(parts, key) for key in keys.keys(session) if _is_own(caller, key)]
    return page(rows, None)


@router.post("/keys", status_code=201)
def create_key(session: Writing, parts: Parts, caller: Asking, new: NewKey) -> dict[str, Any]:
    """Make a key for the namespace, and show it this once."""
    grant = Grant(
        name=new.name.strip(),
        namespace=caller.namespace,
        trust=new.trust,
        scopes=frozenset(new.scopes),
        limits=Limits(new.concurrent, new.requests_per_minute, new.tokens_per_minute),
        expires_at=new.expires_at,
    )
    return {"key": make(session, parts.pepper, grant, caller.principal, parts.now())}


@router.delete("/keys/{key_id}")
def revoke_key(session: Writing, parts: Parts, caller: Asking, key_id: str) -> dict[str, Any]:
    """Let a key be of no use any more, within a second."""
    key = found(_own_key(session, caller, key_id), "key", key_id)
    keys.revoke(session, key.id, caller.principal, parts.now())
    return {"id": key.id, "state": "revoked"}


@router.get("/audit", dependencies=[Depends(everywhere)])
def list_audit(
    session: Reading,
    after: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    limit: Limit = PAGE,
) -> dict[str, Any]:
    """Who changed what, newest first; `byheart db verify` checks the chain of hashes."""
    rows = audit.page(session, after, limit)
    shown = [
        {
            "seq": row.seq,
            "at": row.at.isoformat(),
            "actor": row.actor,
            "action": row.action,
            "subject": row.subject,
            "detail": row.detail,
            "hash": row.hash,
        }
        for row in rows
    ]
    return page(shown, rows[-1].seq if len(rows) == limit else None)


@router.get("/savings")
def get_savings(session: Reading, caller: Asking) -> dict[str, Any]:
    """Prompt tokens that were sent, and those that adapters kept out, by version."""
    return page(search.savings(session, caller.namespace), None)


def _own_key(session: Session, caller: Caller, key_id: str) -> Key | None:
    every = (key for key in keys.keys(session) if _is_own(caller, key))
    return next((key for key in every if key.id == key_id), None)


def _is_own(caller: Caller, key: Key) -> bool:
    """Whether the caller may see a key: one of its namespace, or with a key for all, any."""
    sees_all = caller.key is None or caller.key.grant.namespace is None
    return sees_all or key.grant.namespace == caller.namespace


def _key(parts: Control, key: Key) -> dict[str, Any]:
    grant = key.grant
    state = "valid" if key.is_valid(parts.now()) else "revoked" if key.revoked_at else "expired"
    return {
        "id": key.id,
        "name": grant.name,
        "namespace": grant.namespace,
        "state": state,
        "trust": grant.trust.value,
        "scopes": sorted(grant.scopes),
        "concurrent": grant.limits.concurrent,
        "requests_per_minute": grant.limits.requests_per_minute,
        "tokens_per_minute": grant.limits.tokens_per_minute,
        "created_at": key.created_at.isoformat(),
        "expires_at": grant.expires_at.isoformat() if grant.expires_at else None,
    }
