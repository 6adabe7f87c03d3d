"""Dependencies of the control API's routes: the database, the settings and the caller.

The gateway has authenticated the caller and checked the key's scope before a route runs. Routes act
in the caller's namespace. Data that belongs to no namespace, such as the audit log, requires a key
for all namespaces.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request
from pydantic import AfterValidator, AwareDatetime

from agent.gateway.access.auth import Caller
from agent.gateway.errors import RequestError
from config.settings import Settings
from store import namespaces
from store.db import Database, Session

PAGE, MAX_PAGE = 50, 500
FIRST_YEAR, LAST_YEAR = 1970, 9000
Item = TypeVar("Item")


@dataclass(frozen=True)
class ControlState:
    """State that all requests to the control API share."""

    db: Database
    settings: Settings
    pepper: str
    now: Callable[[], datetime]


def control_of(request: Request) -> ControlState:
    """Return the shared state."""
    control: ControlState = request.app.state.control
    return control


def caller_of(request: Request) -> Caller:
    """Return the authenticated caller."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


ControlDep = Annotated[ControlState, Depends(control_of)]
CallerDep = Annotated[Caller, Depends(caller_of)]


def read_session(control: ControlDep, caller: CallerDep) -> Iterator[Session]:
    """Yield a session with a read transaction, if the caller's namespace exists."""
    with control.db.read() as session:
        namespaces.require(session, caller.namespace)
        yield session


def write_session(control: ControlDep, caller: CallerDep) -> Iterator[Session]:
    """Yield a session with a write transaction, if the caller's namespace exists."""
    with control.db.begin() as session:
        namespaces.require(session, caller.namespace)
        yield session


# With function scope, the transaction is committed before the response is sent.
ReadSession = Annotated[Session, Depends(read_session, scope="function")]
WriteSession = Annotated[Session, Depends(write_session, scope="function")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Maximum number of items in a page.")]
AfterId = Annotated[
    str | None,
    Query(
        pattern="^[a-z]+_[0-9a-f]{32}$",  # an invalid id would skip or repeat items
        description="The `next` value of the previous page.",
    ),
]
After = Annotated[
    str | None, Query(max_length=128, description="The `next` value of the previous page.")
]


def _convertible(time: datetime) -> datetime:
    """Return the time if it can be converted to every time zone."""
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise ValueError(f"the year must be between {FIRST_YEAR} and {LAST_YEAR}")
    return time


Timestamp = Annotated[AwareDatetime, AfterValidator(_convertible)]


def require_all_namespaces(caller: CallerDep) -> None:
    """Require a key for all namespaces.

    Raises:
        RequestError: The caller's key is for one namespace (403).
    """
    caller.require_all_namespaces()


def item_or_404(item: Item | None, what: str, name: str) -> Item:
    """Return the item if it is not None.

    Raises:
        RequestError: There is no such item in the caller's namespace (404).
    """
    if item is None:
        raise RequestError(404, f"Unknown {what} {name[:128]!r}.", code="not_found")
    return item
