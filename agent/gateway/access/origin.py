"""Where a request comes from: what a web page has a browser send is refused.

There are no keys, so whoever reaches loopback is the operator, and a browser on this machine
reaches it for every page that it shows. A page of another site is told by its Origin, also where
its name was made to resolve to loopback (DNS rebinding), then by the Host. What it has fetched as a
picture has neither; a browser says so itself (Fetch Metadata), and how long such an answer takes
would tell the page what is in it. Beside this, bodies must be declared as JSON (wire.py): a browser
sends those to another site only after asking, and nobody here consents. Programs send none of these
headers.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from agent.gateway.errors import RequestError, short

TRUSTED_FETCH_SITES = (b"none", b"same-origin")
"""What a browser says of an address that was typed in, and of this machine's own pages."""


def reject_cross_site(headers: dict[bytes, bytes], allowed: Sequence[str]) -> None:
    """Let a request pass that was sent to this machine, and by no page of another.

    Args:
        headers: The request's, by lower-case name.
        allowed: Names beside those of loopback that it may have been sent to.

    Raises:
        RequestError: Its Host or Origin is another, or its browser says so (403).
    """
    if b"host" in headers:  # no browser leaves it out; health checks in HTTP/1.0 do
        _require_own_name("Host", "//", headers[b"host"], allowed)
    if b"origin" in headers:
        _require_own_name("Origin", "", headers[b"origin"], allowed)
    if headers.get(b"sec-fetch-site", b"none") not in TRUSTED_FETCH_SITES:
        message = "This request is a page's of another site. Ask from a program, or with a key."
        raise RequestError(403, message, code="origin_not_allowed")


def _require_own_name(header: str, scheme: str, value: bytes, allowed: Sequence[str]) -> None:
    sent = value.decode("latin-1")
    name = _hostname(scheme + sent)
    if not (_is_loopback(name) or name in map(str.lower, allowed)):
        raise RequestError(
            403,
            f"{header} {short(sent)!r} is not this machine's: only loopback is served. Ask "
            "127.0.0.1 or localhost; behind a reverse proxy, add the name that its clients use to "
            "server.allowed_hosts.",
            code=f"{header.lower()}_not_allowed",
        )


@lru_cache(1024)
def _hostname(url: str) -> str:
    """The host in a URL, in lower case and without port and brackets; empty where there is none."""
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
