"""A server that is not vLLM counts as an unavailable engine."""

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
def test_an_answer_that_is_not_vllms_counts_as_an_unavailable_engine(body):
    with answering(body) as engine, pytest.raises(EngineUnavailable, match=engine.url):
        engine.max_model_len()


def test_the_engines_maximum_length_is_the_smallest_of_its_models():
    cards = b'{"data": [{"max_model_len": 2048}, {"id": "an adapter"}, {"max_model_len": 1024}]}'
    with answering(cards) as engine:
        assert engine.max_model_len() == 1024
