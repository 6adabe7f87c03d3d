"""Who sends a request, for which namespace, and what they may do.

With a key, it says all three. Without one, whoever is on this machine is the operator, as long as
`server.keys` is `optional`, which is possible on loopback only; what a proxy passes on is from
elsewhere, and needs a key. What the operator sends as feedback is the operator's word; what stands
in a turn is its end user's. This is the one place that decides it, so that everything behind it
works from the `Caller`.
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
"""Headers of a request that a proxy passes on."""


@dataclass(frozen=True)
class Caller:
    """A principal acting in a namespace."""

    principal: str
    namespace: str
    trust: Trust
    """Of feedback; the text of a turn is a user's, whoever passes it on."""
    key: Key | None = None
    """None for the operator on this machine."""

    def may(self, scope: Scope) -> bool:
        """Whether the caller may do what has this scope."""
        return self.key is None or scope in self.key.grant.scopes

    def require_all_namespaces(self) -> None:
        """Let pass who may act in every namespace.

        Raises:
            RequestError: The caller's key is bound to one (403).
        """
        if self.key is not None and self.key.grant.namespace is not None:
            message = (
                "This belongs to no namespace: use a key for all, `byheart keys create NAME -n "
                "'*'`."
            )
            raise RequestError(403, message, code="namespace_not_allowed")

    def end_user(self, name: str | None) -> str:
        """The principal of a turn: whom the request names as its end user, of this caller.

        Independent principals are counted when users say the same, so the caller's own users must
        be told apart.
        """
        return f"{self.principal}/{name}" if name else self.principal


@dataclass(frozen=True)
class Authenticator:
    """How callers are let in."""

    keyring: Keyring
    limiter: RateLimiter
    needs_key: bool

    async def authenticate(self, headers: dict[bytes, bytes], scope: Scope) -> Caller:
        """The caller that a request's headers stand for, who may do what has this scope.

        Raises:
            RequestError: There is no key where one is needed, or it is not good (401); it is not
                for this (403); the namespace cannot exist (404); it was used too often (429).
        """
        key = await self._key(headers)
        named = headers.get(NAMESPACE_HEADER, b"").decode("latin-1")
        if key is None:
            return Caller("local", _namespace(named), Trust.OPERATOR)
        grant = key.grant
        if scope not in grant.scopes:
            has = ", ".join(sorted(grant.scopes))
            message = f"This key is for {has}, not for {scope.value}. Use another, or create one."
            raise RequestError(403, message, code="scope_missing")
        if grant.namespace is not None and named not in ("", grant.namespace):
            message = f"This key is not for namespace {short(named)!r}. Leave the header out."
            raise RequestError(403, message, code="namespace_not_allowed")
        namespace = grant.namespace or _namespace(named)
        self.limiter.count_request(key)
        return Caller(key.principal, namespace, grant.trust, key)

    async def _key(self, headers: dict[bytes, bytes]) -> Key | None:
        """The key that a request carries; None where it carries none and needs none."""
        text = _presented(headers)
        presented = parse(text)
        if presented:
            key = await self.keyring.verify(presented)
            if key is None:
                raise _unauthorised("This key is not known, has expired, or was revoked.")
            return key
        if text.startswith(PREFIX):
            raise _unauthorised("This key is not complete: it has the form bh_<id>_<secret>.")
        if self.needs_key:
            raise _unauthorised("A key is needed here.")
        if any(name in headers for name in FORWARDED):
            raise _unauthorised("What a proxy passes on needs a key.")
        return None


def _presented(headers: dict[bytes, bytes]) -> str:
    """What stands where OpenAI's clients (RFC 6750) or Anthropic's put a key."""
    bearer = headers.get(b"authorization", b"").decode("latin-1")
    kind, _, token = bearer.partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1").strip()


def _unauthorised(problem: str) -> RequestError:
    error = RequestError(
        401,
        f"{problem} Send `Authorization: Bearer bh_...`; `byheart keys create` makes one.",
        code="invalid_api_key",
        kind="authentication_error",
    )
    error.headers.append((b"www-authenticate", b"Bearer"))
    return error


def _namespace(named: str) -> str:
    name = named or DEFAULT_NAMESPACE
    if not NAMESPACE.fullmatch(name):
        raise unknown_namespace(name)
    return name


def unknown_namespace(name: str) -> RequestError:
    """The error for a namespace that does not exist."""
    return RequestError(
        404,
        f"There is no namespace {short(name)!r}. Leave the X-Byheart-Namespace header out for "
        f"{DEFAULT_NAMESPACE!r}, or create it: `byheart namespaces add NAME`.",
        code="namespace_not_found",
    )
