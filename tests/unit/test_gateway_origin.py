"""Which requests may have been caused by a web page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.gateway.access.origin import reject_cross_site
from agent.gateway.errors import RequestError

OURS = ["127.0.0.1", "127.9.9.9:8080", "localhost", "LocalHost:1", "[::1]", "[::1]:8080"]
THEIRS = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "0.0.0.0:8080",
    "[::2]:8080",
    "[::1",
    "",
]


def refused(headers: dict[bytes, bytes], *allowed: str) -> str | None:
    """The code of the refusal, if there is one."""
    try:
        reject_cross_site(headers, allowed)
    except RequestError as error:
        assert error.status == 403  # noqa: PT017 — both outcomes are right
        return error.code
    return None


@pytest.mark.parametrize("host", OURS)
def test_loopback_requests_without_an_origin_or_from_loopback_pages_pass(host: str) -> None:
    assert refused({b"host": host.encode()}) is None
    assert refused({b"host": b"localhost", b"origin": f"http://{host}".encode()}) is None


@pytest.mark.parametrize("host", THEIRS)
def test_another_host_or_origin_is_rejected(host: str) -> None:
    assert refused({b"host": host.encode()}) == "host_not_allowed"
    origin = f"https://{host}".encode()
    assert refused({b"host": b"localhost", b"origin": origin}) == "origin_not_allowed"


@pytest.mark.parametrize("origin", [b"null", b"", b"file://", b"chrome-extension://localhos"])
def test_an_origin_without_an_allowed_host_is_rejected(origin: bytes) -> None:
    assert refused({b"host": b"localhost", b"origin": origin}) == "origin_not_allowed"


def test_a_host_in_allowed_hosts_passes() -> None:
    headers = {b"host": b"LLM.example.com:443", b"origin": b"https://llm.example.com"}
    assert refused(headers, "llm.Example.com") is None
    assert refused(headers | {b"origin": b"https://example.com"}, "llm.example.com")


def test_a_request_without_a_host_passes() -> None:
    assert refused({}) is None


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_header_bytes_pass_or_are_rejected_without_another_error(
    host: bytes, origin: bytes
) -> None:
    refused({b"host": host, b"origin": origin})


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
def test_requests_that_a_browser_marks_as_cross_site_are_rejected(site: bytes) -> None:
    asked = {b"host": b"localhost:8080", b"sec-fetch-mode": b"no-cors", b"sec-fetch-site": site}
    assert refused(asked) == "origin_not_allowed"
    assert refused(asked | {b"sec-fetch-site": b"none"}) is None
