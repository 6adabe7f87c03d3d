"""Errors for clients, in the shape of the OpenAI API.

Every message says what to do. Any step of a request may raise `RequestError`; `app.py` alone turns
it into a response.
"""

from collections.abc import Iterable
from typing import Any

RETRY_AFTER_S = 5
MAX_ECHO_CHARS = 64


class RequestError(Exception):
    """A request ends with an error response."""

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
        """Headers of the response, in addition to those that every response has."""

    def payload(self) -> dict[str, Any]:
        """Return the body of the response."""
        error = {
            "message": self.message,
            "type": self.kind,
            "code": self.code,
            "param": self.param,
        }
        return {"error": error}


def unavailable(message: str, code: str) -> RequestError:
    """Return the error (503, with Retry-After) for a component that is temporarily unavailable."""
    error = RequestError(503, message, code=code)
    error.headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    return error


def unknown_parameter(name: str, known: Iterable[str]) -> RequestError:
    """Return the error for an unknown query parameter: a misspelt filter would match everything."""
    accepted = ", ".join(known) or "none"
    message = f"Unknown query parameter {short(name)!r}. This path accepts: {accepted}."
    return RequestError(400, message, code="unknown_parameter", param=short(name))


def engine_unreachable() -> RequestError:
    """Return the error for an engine that cannot be reached, or that disconnected."""
    return unavailable(
        "The model server is unavailable. Send the request again shortly.",
        code="engine_unavailable",
    )


def engine_answer_invalid() -> RequestError:
    """Return the error for an engine's answer that is malformed or reports an error."""
    message = "The model server sent an invalid answer. See its log, or send the request again."
    return RequestError(502, message, code="engine_error")


def short(text: str) -> str:
    """Return a client's text, shortened for an error message."""
    return text if len(text) <= MAX_ECHO_CHARS else f"{text[:MAX_ECHO_CHARS]}..."


def _kind(status: int) -> str:
    if status == 404:
        return "not_found_error"
    return "invalid_request_error" if status < 500 else "server_error"
