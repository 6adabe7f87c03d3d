"""What stands in the engine's place and is no vLLM is told as an engine that is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from distill.model.engine_sampler import EngineAddress, EngineUnavailable


@contextmanager
def answering(body: bytes) -> Iterator[EngineAddress]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield EngineAddress(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Welcome</html>",
        b"{}",
        b"[]",
        b"3",
        b'{"data": 3}',
        b'{"data": [3]}',
        b'{"data": []}',
    ],
)
def test_a_page_in_the_engine_s_place_is_an_engine_that_is_away(body):
    with answering(body) as engine, pytest.raises(EngineUnavailable, match=engine.url):
        engine.max_model_len()


def test_the_shortest_of_its_models_lengths_is_the_longest_prompt():
    cards = b'{"data": [{"max_model_len": 2048}, {"id": "an adapter"}, {"max_model_len": 1024}]}'
    with answering(cards) as engine:
        assert engine.max_model_len() == 1024
