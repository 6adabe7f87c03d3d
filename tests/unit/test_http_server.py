"""The endpoint's URL and its limit of open files."""

import resource
from urllib.parse import urlsplit

import pytest

from agent.http_server import raise_open_file_limit, url_of


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_url_parses_to_the_host_and_port(host: str) -> None:
    parts = urlsplit(url_of(host, 8080))
    assert (parts.hostname, parts.port) == (host, 8080)


ANY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "most", "then"),
    [(256, 4096, 2128), (256, 1024, 1024), (4096, 4096, None), (256, ANY, 2128), (ANY, ANY, None)],
)
def test_the_open_file_limit_is_raised_to_allow_all_connections(
    monkeypatch: pytest.MonkeyPatch, soft: int, most: int, then: int | None
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, most))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    raise_open_file_limit(1000)
    assert limits == ([(then, most)] if then else [])
