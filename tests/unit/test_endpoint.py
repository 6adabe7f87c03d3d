"""Where the endpoint says that it listens."""

from urllib.parse import urlsplit

import pytest

from agent.endpoint import url_of


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_url_leads_to_the_address(host: str) -> None:
    parts = urlsplit(url_of(host, 8080))
    assert (parts.hostname, parts.port) == (host, 8080)
