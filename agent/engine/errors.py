"""Errors of the engine, and the one place that translates aiohttp's errors into them."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp


class EngineError(Exception):
    """A request to the engine failed."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached, or did not begin its answer in time."""


class EngineUnreachable(EngineUnavailable):
    """No connection could be opened, so the request was not sent."""


class EngineDisconnected(EngineUnavailable):
    """The engine disconnected in the middle of an answer."""


class EngineStatusError(EngineError):
    """The engine answered with an error status; `message` and `body` are the engine's own."""

    def __init__(self, status: int, message: str, body: bytes = b"") -> None:
        super().__init__(f"the engine answered {status}: {message}")
        self.status = status
        self.message = message
        self.body = body

    @property
    def is_too_long(self) -> bool:
        """Whether prompt and answer exceed the context length; vLLM has no error code for it."""
        return self.status == 400 and "maximum context length" in self.message


@contextmanager
def translate_errors(server: str, failure: type[EngineUnavailable]) -> Iterator[None]:
    """Translate aiohttp's errors; those after the request was sent become `failure`."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise EngineUnreachable(f"cannot connect to the engine at {server}: {error}") from error
    except TimeoutError as error:
        raise failure(f"the engine at {server} did not answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise failure(f"the engine at {server} closed the connection: {error}") from error
