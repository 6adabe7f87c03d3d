"""Authenticate a request: its principal, its namespace, its scopes.

A key determines all three. A request without a key is the local operator's if `server.keys` is
`optional`, which is possible on loopback only. A request that a proxy forwards may come from
another machine and always needs a key. Feedback without a key has the operator's trust; the text
of a turn always has a user's. Only this module decides this: all other code reads the `Caller`.
"""

import re
from dataclasses import dataclass

from agent.gateway.access.api_key import PREFIX, parse
from agent.gateway.access.keyring import Keyring
from agent.gateway.access.limits import RateLimiter
from agent.gateway.errors import RequestError, short
from store.keys import Key, Scope
from store.schema import Trust

DEFAULT_NAMESPACE = "default"
NAMESPACE_HEADER = b"x-byheart-namespace"
NAMESPACE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FORWARDED = (
    *(b"forwarded", b"via", b"x-real-ip", b"cf-connecting-ip"),
    *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
)
"""Headers that mark a request as forwarded by a proxy."""


@dataclass(frozen=True)
class Caller:
    """A principal acting in a namespace."""

    principal: str
    namespace: str
    trust: Trust
    """The trust of the caller's feedback; the text of a turn always has a user's trust."""
    key: Key | None = None
    """None for the local operator."""

    def has_scope(self, scope: Scope) -> bool:
        """Return whether the caller has a scope."""
        return self.key is None or scope in self.key.grant.scopes

    def require_all_namespaces(self) -> None:
        """Require a caller that may act in every namespace.

        Raises:
            RequestError: The caller's key is bound to one namespace (403).
        """
        if self.key is not None and self.key.grant.namespace is not None:
            message = (
                "This path needs a key for all namespaces. Create one: `byheart keys create NAME "
                "-n '*'`."
            )
            raise RequestError(403, message, code="namespace_not_allowed")

    def end_user(self, name: str | None) -> str:
        """Return the principal of a turn: the end user that the request names, below this caller.

        Learning counts independent principals that state the same fact, so the caller's end users
        must be distinct.
        """
        return f"{self.principal}/{name}" if name else self.principal


@dataclass(frozen=True)
class Authenticator:
    """Maps the headers of a request to its caller."""

    keyring: Keyring
    limiter: RateLimiter
    needs_key: bool

    async def authenticate(self, headers: dict[bytes, bytes], scope: Scope) -> Caller:
        """Return the caller, who must have `scope`; count the request towards the key's limit.

        Raises:
            RequestError: The key is missing or invalid (401); it lacks the scope or the namespace
                (403); the namespace's name is invalid (404); the key exceeds its requests per
                minute (429).
        """
        key = await self._key(headers)
        requested = headers.get(NAMESPACE_HEADER, b"").decode("latin-1")
        if key is None:
            return Caller("local", _namespace(requested), Trust.OPERATOR)
        grant = key.grant
        if scope not in grant.scopes:
            scopes = ", ".join(sorted(grant.scopes))
            message = (
                f"This request needs the scope {scope.value}; the key has {scopes}. Use another "
                "key, or create one."
            )
            raise RequestError(403, message, code="scope_missing")
        if grant.namespace is not None and requested not in ("", grant.namespace):
            message = f"This key is not valid for namespace {short(requested)!r}. Omit the header."
            raise RequestError(403, message, code="namespace_not_allowed")
        namespace = grant.namespace or _namespace(requested)
        self.limiter.count_request(key)
        return Caller(key.principal, namespace, grant.trust, key)

    async def _key(self, headers: dict[bytes, bytes]) -> Key | None:
        """Return the verified key of a request; None if it has none and needs none."""
        text = _credential(headers)
        presented = parse(text)
        if presented:
            key = await self.keyring.verify(presented)
            if key is None:
                raise _unauthorised("The key is unknown, expired or revoked.")
            return key
        if text.startswith(PREFIX):
            raise _unauthorised("The key is malformed: keys have the form bh_<id>_<secret>.")
        if self.needs_key:
            raise _unauthorised("This server requires a key.")
        if any(name in headers for name in FORWARDED):
            raise _unauthorised("A request that a proxy forwards requires a key.")
        return None


def _credential(headers: dict[bytes, bytes]) -> str:
    """Return the key that the client sent, as OpenAI's (RFC 6750) or Anthropic's clients do."""
    bearer = headers.get(b"authorization", b"").decode("latin-1")
    kind, _, token = bearer.partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip()


def _unauthorised(problem: str) -> RequestError:
    error = RequestError(
        401,
        f"{problem} Send `Authorization: Bearer bh_...`; create a key with `byheart keys create`.",
        code="invalid_api_key",
        kind="authentication_error",
    )
    error.headers.append((b"www-authenticate", b"Bearer"))
    return error


def _namespace(requested: str) -> str:
    name = requested or DEFAULT_NAMESPACE
    if not NAMESPACE.fullmatch(name):
        raise unknown_namespace(name)
    return name


def unknown_namespace(name: str) -> RequestError:
    """Return the error for a namespace that does not exist."""
    return RequestError(
        404,
        f"There is no namespace {short(name)!r}. Omit the X-Byheart-Namespace header for "
        f"{DEFAULT_NAMESPACE!r}, or create it: `byheart namespaces add NAME`.",
        code="namespace_not_found",
    )
