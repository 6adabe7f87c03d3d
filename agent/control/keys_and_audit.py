"""API keys, the audit log, and the prompt tokens saved."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from agent.control import schemas
from agent.control.dependencies import (
    PAGE,
    After,
    CallerDep,
    ControlDep,
    ControlState,
    Limit,
    ReadSession,
    Timestamp,
    WriteSession,
    item_or_404,
    require_all_namespaces,
)
from agent.gateway.access.api_key import issue_key
from agent.gateway.access.auth import Caller
from agent.gateway.errors import RequestError
from store import audit, keys, search
from store.db import Session
from store.keys import Grant, Key, Limits, Scope
from store.schema import Trust

router = APIRouter(tags=["operations"])
KeyLimit = Annotated[int, Field(gt=0, le=2**31 - 1)]


class NewKey(BaseModel):
    """An API key to create."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"\S")]
    scopes: Annotated[list[Scope], Field(fail_fast=True, min_length=1, max_length=8)] = [
        Scope.INFER,
        Scope.FEEDBACK,
    ]
    trust: Trust = Trust.USER
    expires_at: Timestamp | None = None
    concurrent: KeyLimit | None = None
    requests_per_minute: KeyLimit | None = None
    tokens_per_minute: KeyLimit | None = None


@router.get("/keys")
def list_keys(
    session: ReadSession,
    control: ControlDep,
    caller: CallerDep,
    after: After = None,
    limit: Limit = PAGE,
) -> schemas.Page[schemas.Key]:
    """List API keys of the namespace, or all keys with a key for all namespaces; no secrets."""
    rows, following = keys.page(session, _visible_namespace(caller), after, limit)
    return schemas.Page(data=[_key(control, key) for key in rows], next=following)


@router.post("/keys", status_code=201)
def create_key(
    session: WriteSession, control: ControlDep, caller: CallerDep, new: NewKey
) -> schemas.CreatedKey:
    """Create an API key for the namespace. The response is the only place that shows it."""
    if new.expires_at is not None and new.expires_at <= control.now():
        raise RequestError(
            400, "'expires_at' must be in the future.", code="invalid", param="expires_at"
        )
    grant = Grant(
        name=new.name.strip(),
        namespace=caller.namespace,
        trust=new.trust,
        scopes=frozenset(new.scopes),
        limits=Limits(new.concurrent, new.requests_per_minute, new.tokens_per_minute),
        expires_at=new.expires_at,
    )
    if caller.key is not None:
        grant = _restrict_grant(grant, caller.key.grant)
    return schemas.CreatedKey(
        key=issue_key(session, control.pepper, grant, caller.principal, control.now())
    )


def _restrict_grant(grant: Grant, own: Grant) -> Grant:
    """Return a grant within the caller's own, whose expiry is the default.

    Raises:
        RequestError: The grant would exceed the caller's own (403).
    """
    if own.limits != Limits():  # limits are per key, so a second key would double them
        message = "A key with limits cannot create keys. Use another key, or `byheart keys create`."
        raise RequestError(403, message, code="grant_exceeded")
    expires_at, end = grant.expires_at or own.expires_at, own.expires_at
    is_longer = bool(expires_at and end and expires_at > end)
    is_trusted_more = grant.trust is Trust.OPERATOR and own.trust is not Trust.OPERATOR
    if is_longer or is_trusted_more or not grant.scopes <= own.scopes:
        message = (
            "A key cannot create keys with more scopes, more trust or a later expiry than its own. "
            "Use another key, or `byheart keys create`."
        )
        raise RequestError(403, message, code="grant_exceeded")
    return replace(grant, expires_at=expires_at)


@router.delete("/keys/{key_id}")
def revoke_key(
    session: WriteSession, control: ControlDep, caller: CallerDep, key_id: str
) -> schemas.RevokedKey:
    """Revoke an API key; it is rejected within a second."""
    key = item_or_404(_own_key(session, caller, key_id), "key", key_id)
    keys.revoke(session, key.id, caller.principal, control.now())
    return schemas.RevokedKey(id=key.id)


@router.get("/audit", dependencies=[Depends(require_all_namespaces)])
def list_audit(
    session: ReadSession,
    after: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    limit: Limit = PAGE,
) -> schemas.Page[schemas.AuditEntry]:
    """List audit entries, newest first. `byheart db verify` checks their hash chain."""
    rows = audit.page(session, after, limit)
    shown = [schemas.AuditEntry.model_validate(row) for row in rows]
    return schemas.Page(data=shown, next=rows[-1].seq if len(rows) == limit else None)


@router.get("/savings")
def get_savings(session: ReadSession, caller: CallerDep) -> schemas.Page[schemas.Saving]:
    """List prompt tokens per version: sent, and saved because lessons are in the weights."""
    rows = search.savings(session, caller.namespace)
    return schemas.Page(data=[schemas.Saving(**row) for row in rows], next=None)


def _own_key(session: Session, caller: Caller, key_id: str) -> Key | None:
    key, namespace = keys.find(session, key_id), _visible_namespace(caller)
    return key if key and namespace in (None, key.grant.namespace) else None


def _visible_namespace(caller: Caller) -> str | None:
    """Return the namespace whose keys the caller may see; None for all."""
    return caller.key.grant.namespace if caller.key else None


def _key(control: ControlState, key: Key) -> schemas.Key:
    grant = key.grant
    return schemas.Key(
        id=key.id,
        name=grant.name,
        namespace=grant.namespace,
        state="valid"
        if key.is_valid(control.now())
        else "revoked"
        if key.revoked_at
        else "expired",
        trust=grant.trust,
        scopes=sorted(grant.scopes),
        concurrent=grant.limits.concurrent,
        requests_per_minute=grant.limits.requests_per_minute,
        tokens_per_minute=grant.limits.tokens_per_minute,
        created_at=key.created_at,
        expires_at=grant.expires_at,
    )
