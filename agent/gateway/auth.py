"""Who sends a request, and for which namespace.

There are no keys: only loopback is served, and whoever is on this machine is the operator. This is
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
        f"{DEFAULT_NAMESPACE!r}, or create it: `byheart compile FILE --namespace NAME`.",
        code="namespace_not_found",
    )
