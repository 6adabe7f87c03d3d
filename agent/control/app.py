"""The control API as an ASGI application, which the gateway calls once it knows who asks.

Errors have the shape of the OpenAI API, as everywhere: what is not there is 404, what contradicts
the state of things 409, a database that is away 503.
"""

from collections.abc import Awaitable, Callable
from importlib.metadata import version

from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.utils import get_flat_dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from agent.control import interactions, keys_and_audit, lessons, versions
from agent.control.dependencies import Control
from agent.control.schemas import Failure
from agent.gateway.errors import RequestError, unavailable, unknown_parameter
from agent.learning.operator_edits import (
    DuplicateLesson,
    ExpiryInPast,
    LessonTooLong,
    PromptTooLong,
)
from agent.process.data_dir import StartError
from store.adapters import UnknownAdapter
from store.db import AWAY
from store.keys import TrustConflict, UnknownKey
from store.namespaces import UnknownNamespace
from store.rollouts import NothingToRollBack, StaleAlias
from store.runs import UnknownRun
from store.schema import IllegalTransition

PREFIX = "/api/v1"
MISSING = (UnknownAdapter, UnknownKey, UnknownNamespace, UnknownRun)
CONTRADICTING = (IllegalTransition, NothingToRollBack, StaleAlias, StartError, TrustConflict)

Handler = Callable[[Request, Exception], Awaitable[Response]]


def build(control: Control) -> FastAPI:
    """The application."""
    app = FastAPI(
        title="byheart control API",
        version=version("byheart"),
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its page would be fetched from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to whatever host a request names
        # The gateway has let the caller in: the bearer is for who reads the schema.
        dependencies=[Depends(only_known), Depends(HTTPBearer(auto_error=False))],
        responses={"4XX": {"model": Failure}, "5XX": {"model": Failure}},
    )
    app.state.control = control
    for routes in (interactions, lessons, versions, keys_and_audit):
        app.include_router(routes.router, prefix=PREFIX)
    app.add_exception_handler(RequestError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    handlers: list[tuple[tuple[type[Exception], ...], Handler]] = [
        (MISSING, _as(404, "not_found")),
        (CONTRADICTING, _as(409, "conflict")),
        ((DuplicateLesson,), _as(409, "lesson_known")),
        ((LessonTooLong,), _as(400, "lesson_too_long")),
        ((ExpiryInPast,), _as(400, "expiry_in_past")),
        ((PromptTooLong,), _as(400, "prompt_too_long")),
        (AWAY, _away),
    ]
    for kinds, handler in handlers:
        for kind in kinds:
            app.add_exception_handler(kind, handler)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)
    return app


def only_known(request: Request) -> None:
    """Refuse query parameters that the path does not take.

    Raises:
        RequestError: There is one (400).
    """
    known = [
        field.alias for field in get_flat_dependant(request.scope["route"].dependant).query_params
    ]
    for name in request.query_params:
        if name not in known:
            raise unknown_parameter(name, known)


def _answer(error: RequestError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers}
    return JSONResponse(error.payload(), error.status, headers)


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _answer(error)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"][1:])[:128]
    message = f"'{where}': {problem['msg']}" if where else str(problem["msg"])
    return _answer(RequestError(400, message, code=problem["type"], param=where or None))


async def _away(_request: Request, _error: Exception) -> Response:
    return _answer(unavailable("The database is away. Try again shortly.", "database_unavailable"))


async def _failed(_request: Request, _error: Exception) -> Response:
    return _answer(RequestError(500, "byheart failed on this request. Its log says why."))


async def _refused(_request: Request, error: Exception) -> Response:
    """What the framework refuses by itself, in our words."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, RequestError):  # raised while the body was read
        return _answer(error.__cause__)
    message = {
        404: f"There is nothing here. {PREFIX}/openapi.json says what there is.",
        405: "This path takes another method.",
    }.get(error.status_code, str(error.detail))
    refused = RequestError(error.status_code, message, code="refused")
    told = (error.headers or {}).items()  # such as the methods that are allowed
    refused.headers += [(name.lower().encode(), value.encode()) for name, value in told]
    return _answer(refused)


def _as(status: int, code: str) -> Handler:
    async def handle(_request: Request, error: Exception) -> Response:
        return _answer(RequestError(status, str(error), code=code))

    return handle
