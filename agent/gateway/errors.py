"""What a client is told when a request cannot be served, in the shape of the OpenAI API.

Every message says what to do. `RequestError` is raised anywhere on the way of a request and turned
into an answer in one place, `app.py`.
"""

from collections.abc import Iterable
from typing import Any

RETRY_AFTER_S = 5
MAX_ECHO_CHARS = 64


class RequestError(Exception):
    """A request that ends with an error answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind or _kind(status)
        self.headers: list[tuple[bytes, bytes]] = []
        """Headers of the answer beside those every answer has."""

    def payload(self) -> dict[str, Any]:
        """The body of the answer."""
        error = {
            "message": self.message,
            "type": self.kind,
            "code": self.code,
            "param": self.param,
        }
        return {"error": error}


def unavailable(message: str, code: str) -> RequestError:
    """Something that serves is down, but should be back."""
    error = RequestError(503, message, code=code)
    error.headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    return error


def unknown_parameter(name: str, known: Iterable[str]) -> RequestError:
    """The error for a query parameter that nothing looks at: a misspelt filter finds everything."""
    takes = ", ".join(known) or "none"
    message = f"Unknown query parameter {short(name)!r}. This path takes: {takes}."
    return RequestError(400, message, code="unknown_parameter", param=short(name))


def engine_unreachable() -> RequestError:
    """The engine cannot be reached, or broke off."""
    return unavailable(
        "The model server does not answer. Send the request again shortly.",
        code="engine_unavailable",
    )


def engine_answer_invalid() -> RequestError:
    """The engine's answer is none, or one of an error."""
    message = "The model server's answer cannot be read. Send the request again; its log says more."
    return RequestError(502, message, code="engine_error")


def short(said: str) -> str:
    """What a client said, as far as an error repeats it."""
    return said if len(said) <= MAX_ECHO_CHARS else f"{said[:MAX_ECHO_CHARS]}..."


def _kind(status: int) -> str:
    if status == 404:
        return "not_found_error"
    return "invalid_request_error" if status < 500 else "server_error"
