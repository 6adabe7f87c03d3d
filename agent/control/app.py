"""The control API as an ASGI application, which the gateway calls for authenticated requests.

Errors have the shape of the OpenAI API: 404 for what does not exist, 409 for a conflict with the
current state, 503 if the database is unavailable.
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
from agent.control.dependencies import ControlState
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
from store.db import DATABASE_UNAVAILABLE
from store.keys import TrustConflict, UnknownKey
from store.namespaces import UnknownNamespace
from store.rollouts import NothingToRollBack, StaleAlias
from store.runs import UnknownRun
from store.schema import IllegalTransition

PREFIX = "/api/v1"
NOT_FOUND = (UnknownAdapter, UnknownKey, UnknownNamespace, UnknownRun)
CONFLICTS = (IllegalTransition, NothingToRollBack, StaleAlias, StartError, TrustConflict)

Handler = Callable[[Request, Exception], Awaitable[Response]]


def build(control: ControlState) -> FastAPI:
    """Return the application."""
    app = FastAPI(
        title="byheart control API",
        version=version("byheart"),
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # the page would load scripts from another site
        redoc_url=None,
        redirect_slashes=False,  # the redirect would trust the Host header
        # The gateway authenticates; HTTPBearer only documents that in the schema.
        dependencies=[Depends(reject_unknown_parameters), Depends(HTTPBearer(auto_error=False))],
        responses={"4XX": {"model": Failure}, "5XX": {"model": Failure}},
    )
    app.state.control = control
    for routes in (interactions, lessons, versions, keys_and_audit):
        app.include_router(routes.router, prefix=PREFIX)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    handlers: list[tuple[tuple[type[Exception], ...], Handler]] = [
        (NOT_FOUND, _error_handler(404, "not_found")),
        (CONFLICTS, _error_handler(409, "conflict")),
        ((DuplicateLesson,), _error_handler(409, "lesson_known")),
        ((LessonTooLong,), _error_handler(400, "lesson_too_long")),
        ((ExpiryInPast,), _error_handler(400, "expiry_in_past")),
        ((PromptTooLong,), _error_handler(400, "prompt_too_long")),
        (DATABASE_UNAVAILABLE, _database_unavailable),
    ]
    for kinds, handler in handlers:
        for kind in kinds:
            app.add_exception_handler(kind, handler)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)
    return app


def reject_unknown_parameters(request: Request) -> None:
    """Reject query parameters that the route does not have.

    Raises:
        RequestError: There is an unknown parameter (400).
    """
    known = [
        field.alias for field in get_flat_dependant(request.scope["route"].dependant).query_params
    ]
    for name in request.query_params:
        if name not in known:
            raise unknown_parameter(name, known)


def _error_response(error: RequestError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers}
    return JSONResponse(error.payload(), error.status, headers)


async def _request_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error_response(error)


async def _validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"][1:])[:128]
    message = f"'{where}': {problem['msg']}" if where else str(problem["msg"])
    return _error_response(RequestError(400, message, code=problem["type"], param=where or None))


async def _database_unavailable(_request: Request, _error: Exception) -> Response:
    return _error_response(
        unavailable("The database is unavailable. Try again shortly.", "database_unavailable")
    )


async def _unexpected_error(_request: Request, _error: Exception) -> Response:
    return _error_response(RequestError(500, "Internal error. See byheart's log."))


async def _http_error(_request: Request, error: Exception) -> Response:
    """Return an error of the framework, such as 404 and 405, in the shape of the API."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, RequestError):  # raised while the body was read
        return _error_response(error.__cause__)
    message = {
        404: f"Unknown path. {PREFIX}/openapi.json lists all paths.",
        405: "Method not allowed. The Allow header lists the allowed methods.",
    }.get(error.status_code, str(error.detail))
    rejected = RequestError(error.status_code, message, code="refused")
    headers = (error.headers or {}).items()  # such as Allow
    rejected.headers += [(name.lower().encode(), value.encode()) for name, value in headers]
    return _error_response(rejected)


def _error_handler(status: int, code: str) -> Handler:
    async def handle(_request: Request, error: Exception) -> Response:
        return _error_response(RequestError(status, str(error), code=code))

    return handle
