"""API keys, in the form `bh_<id>_<secret>`, and the digest that the database stores.

The secret has 256 random bits, so a fast digest is enough: HMAC-SHA256 (RFC 2104) keyed with the
pepper, a secret in the data folder that is not in the database or its backups.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from agent.process.data_dir import load_or_create_secret
from store import keys
from store.db import Database, Session
from store.keys import Grant, Scope
from store.schema import Trust

PREFIX = "bh_"
PEPPER = "pepper"
"""The name of the pepper's file in the data folder."""
ID_BYTES, SECRET_BYTES = 8, 32

_KEY = re.compile(rf"bh_([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")


@dataclass(frozen=True)
class PresentedKey:
    """A key as a request presents it, not verified yet."""

    id: str
    secret: str


def parse(text: str) -> PresentedKey | None:
    """Parse a key; return None if the text is not one."""
    match = _KEY.fullmatch(text)
    return PresentedKey(*match.groups()) if match else None


def generate_key() -> PresentedKey:
    """Generate a random key."""
    return PresentedKey(secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES))


def format_key(key: PresentedKey) -> str:
    """Return the key as text, as its holder stores it."""
    return f"{PREFIX}{key.id}_{key.secret}"


def digest(pepper: str, key: PresentedKey) -> bytes:
    """Return the digest of a key that the database stores, 32 bytes."""
    return hmac.digest(pepper.encode(), f"{key.id}.{key.secret}".encode(), hashlib.sha256)


def pepper(data_dir: Path) -> str:
    """Return the pepper of a data folder; create it on first use."""
    return load_or_create_secret(data_dir / PEPPER)


def issue_key(session: Session, pepper: str, grant: Grant, actor: str, now: datetime) -> str:
    """Create a key for a grant; return it as text, which is not stored anywhere.

    Raises:
        UnknownNamespace: The namespace does not exist.
        TrustConflict: The principal exists with another trust.
    """
    key = generate_key()
    keys.create(session, key.id, digest(pepper, key), grant, actor, now)
    return format_key(key)


def _grants_everything(grant: Grant) -> bool:
    return Scope.ADMIN in grant.scopes and grant.namespace is None


def first_admin_key(db: Database, pepper: str, now: datetime) -> str | None:
    """Create a key with all scopes for all namespaces; return None if a valid admin key exists."""
    with db.begin() as session:
        if any(_grants_everything(key.grant) and key.is_valid(now) for key in keys.keys(session)):
            return None
        grant = Grant("admin", None, Trust.OPERATOR, frozenset(Scope))
        return issue_key(session, pepper, grant, "first start", now)
