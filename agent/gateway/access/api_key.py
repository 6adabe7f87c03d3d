"""Keys as clients hold them: `bh_<id>_<secret>`, and what of one is kept.

The secret has 256 random bits, so a fast digest is enough: HMAC-SHA256 (RFC 2104) under the pepper,
a value of the data folder that is in no database and no backup of one.
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
"""Name of its file in the data folder."""
ID_BYTES, SECRET_BYTES = 8, 32

_KEY = re.compile(rf"bh_([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")


@dataclass(frozen=True)
class PresentedKey:
    """A key that a request carries; who it is has still to be proven."""

    id: str
    secret: str


def parse(text: str) -> PresentedKey | None:
    """The parts of a key; None for what is none."""
    match = _KEY.fullmatch(text)
    return PresentedKey(*match.groups()) if match else None


def generate_key() -> PresentedKey:
    """A new key, that nobody else has."""
    return PresentedKey(secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES))


def format_key(key: PresentedKey) -> str:
    """The key as its holder keeps it."""
    return f"{PREFIX}{key.id}_{key.secret}"


def digest(pepper: str, key: PresentedKey) -> bytes:
    """What is kept of a key, 32 bytes."""
    return hmac.digest(pepper.encode(), f"{key.id}.{key.secret}".encode(), hashlib.sha256)


def pepper(data_dir: Path) -> str:
    """The pepper of a data folder."""
    return load_or_create_secret(data_dir / PEPPER)


def issue_key(session: Session, pepper: str, grant: Grant, actor: str, now: datetime) -> str:
    """Make a key for what is granted; the key as its holder keeps it, which is nowhere else.

    Raises:
        UnknownNamespace: There is no such namespace.
        TrustConflict: The principal is there with another trust.
    """
    key = generate_key()
    keys.create(session, key.id, digest(pepper, key), grant, actor, now)
    return format_key(key)


def _is_for_all(grant: Grant) -> bool:
    return Scope.ADMIN in grant.scopes and grant.namespace is None


def first_admin_key(db: Database, pepper: str, now: datetime) -> str | None:
    """A key with all scopes for all namespaces; None where there is one already that can do so."""
    with db.begin() as session:
        if any(_is_for_all(key.grant) and key.is_valid(now) for key in keys.keys(session)):
            return None
        grant = Grant("admin", None, Trust.OPERATOR, frozenset(Scope))
        return issue_key(session, pepper, grant, "first start", now)
