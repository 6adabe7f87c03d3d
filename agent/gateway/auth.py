"""Who sends a request, and for which namespace.

There are no keys: only loopback is served, and whoever is on this machine is the operator. What the
operator sends as feedback is the operator's word; what stands in a turn is its end user's. This is
the one place that decides it, so that everything behind it works from the `Caller`.
"""

import re
from dataclasses import dataclass

from agent.gateway.errors import RequestError, short
from store.schema import Trust

DEFAULT_NAMESPACE = "default"
NAMESPACE_HEADER = b"x-byheart-namespace"
NAMESPACE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Caller:
    """A principal acting in a namespace."""

    principal: str
    namespace: str
    trust: Trust
    """Of feedback; the text of a turn is a user's, whoever passes it on."""

    def end_user(self, name: str | None) -> str:
        """The principal of a turn: whom the request names as its end user, of this caller.

        Independent principals are counted when users say the same, so the caller's own users must
        be told apart.
        """
        return f"{self.principal}/{name}" if name else self.principal


def authenticate(headers: dict[bytes, bytes]) -> Caller:
    """The caller that a request's headers stand for.

    Raises:
        RequestError: The namespace cannot exist.
    """
    name = headers.get(NAMESPACE_HEADER, b"").decode("latin-1") or DEFAULT_NAMESPACE
    if not NAMESPACE.fullmatch(name):
        raise unknown_namespace(name)
    return Caller(principal="local", namespace=name, trust=Trust.OPERATOR)


def unknown_namespace(name: str) -> RequestError:
    """The error for a namespace that does not exist."""
    return RequestError(
        404,
        f"There is no namespace {short(name)!r}. Leave the X-Byheart-Namespace header out for "
        f"{DEFAULT_NAMESPACE!r}, or create it: `byheart namespaces add NAME`.",
        code="namespace_not_found",
    )
