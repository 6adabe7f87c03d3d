"""Reject requests that a web page of another site makes through a local browser.

Without keys, every process that reaches loopback acts as the operator, and a browser on this
machine reaches loopback for any page that it shows. Three headers identify such requests. `Origin`
names a page of another site. `Host` names the site whose DNS name was rebound to loopback. A page's
image requests carry neither, but browsers mark them with Fetch Metadata (`Sec-Fetch-Site`);
without that check, the page could infer a response's content from its timing. In addition, asgi.py
requires bodies to be declared as JSON: a browser sends those across sites only after a preflight
request, which byheart never grants. Programs other than browsers send none of these headers.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from agent.gateway.errors import RequestError, short

TRUSTED_FETCH_SITES = (b"none", b"same-origin")
"""`Sec-Fetch-Site` of a typed address, and of a page that this server served."""


def reject_cross_site(headers: dict[bytes, bytes], allowed: Sequence[str]) -> None:
    """Reject a request that a page of another site sent.

    Args:
        headers: The request's headers, by lower-case name.
        allowed: Host names that are accepted in addition to loopback.

    Raises:
        RequestError: The Host, the Origin or Sec-Fetch-Site is of another site (403).
    """
    if b"host" in headers:  # browsers always send it; HTTP/1.0 health checks may not
        _require_own_name("Host", "//", headers[b"host"], allowed)
    if b"origin" in headers:
        _require_own_name("Origin", "", headers[b"origin"], allowed)
    if headers.get(b"sec-fetch-site", b"none") not in TRUSTED_FETCH_SITES:
        message = "Cross-site browser request rejected. Send it from a program, or with a key."
        raise RequestError(403, message, code="origin_not_allowed")


def _require_own_name(header: str, scheme: str, value: bytes, allowed: Sequence[str]) -> None:
    sent = value.decode("latin-1")
    name = _hostname(scheme + sent)
    if not (_is_loopback(name) or name in map(str.lower, allowed)):
        raise RequestError(
            403,
            f"{header} {short(sent)!r} is not a name of this machine. Use 127.0.0.1 or localhost; "
            "behind a reverse proxy, add its public host name to server.allowed_hosts.",
            code=f"{header.lower()}_not_allowed",
        )


@lru_cache(1024)
def _hostname(url: str) -> str:
    """Return the host of a URL, lower-case, without port and brackets; empty if it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@lru_cache(1024)
def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
