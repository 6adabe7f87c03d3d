"""How much of bodies is in memory at once."""

import pytest

from agent.gateway.errors import RequestError
from agent.gateway.uploads import Uploads


def test_a_caller_has_a_share_and_all_together_have_so_much() -> None:
    uploads = Uploads(most=10, each=6)
    with uploads.of("ann") as ann, uploads.of("bob") as bob:
        ann(6)
        with pytest.raises(RequestError) as of_ann:
            ann(1)
        with pytest.raises(RequestError) as of_all:
            bob(4)
    assert (of_ann.value.status, of_all.value.status) == (429, 503)


def test_what_has_been_received_makes_room() -> None:
    uploads = Uploads(most=10, each=6)
    for _ in range(5):
        with uploads.of("ann") as add:
            add(3)
            add(3)
    with uploads.of("ann") as one, uploads.of("ann") as other:
        one(3)
        other(3)
        with pytest.raises(RequestError):
            other(1)
