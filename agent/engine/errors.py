"""What can go wrong with the engine, and the one place where aiohttp's errors become that."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp


class EngineError(Exception):
    """The engine did not answer as asked."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached, or fell silent before its answer began."""


class EngineUnreachable(EngineUnavailable):
    """No connection could be made: the request was not sent."""


class EngineDisconnected(EngineUnavailable):
    """The engine broke off in the middle of an answer."""


class EngineStatusError(EngineError):
    """The engine answered with an error; `status`, `message` and `body` are its own."""

    def __init__(self, status: int, message: str, body: bytes = b"") -> None:
        super().__init__(f"the engine answered {status}: {message}")
        self.status = status
        self.message = message
        self.body = body

    @property
    def is_too_long(self) -> bool:
        """Whether prompt and answer do not fit the model; vLLM says so in words only."""
        return self.status == 400 and "maximum context length" in self.message


@contextmanager
def translated(server: str, failure: type[EngineUnavailable]) -> Iterator[None]:
    """Turn what aiohttp raises into the engine's errors."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise EngineUnreachable(f"no connection to the engine at {server}: {error}") from error
    except TimeoutError as error:
        raise failure(f"the engine at {server} did not answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise failure(f"the engine at {server} broke the connection: {error}") from error
