"""What the control API's routes work with: the database, the settings, and who asks.

A reader's key sees its namespace, an administrator's changes it; what belongs to no namespace, as
the audit log does, only a key of none may see. Who asks was decided by the gateway's door, before
any of this runs.
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

PAGE, MOST_PAGE = 50, 500
FIRST_YEAR, LAST_YEAR = 1970, 9000
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Control:
    """What lives longer than a request."""

    db: Database
    settings: Settings
    pepper: str
    now: Callable[[], datetime]


def control_of(request: Request) -> Control:
    """The control API's own parts."""
    control: Control = request.app.state.control
    return control


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.scope["state"]["caller"]
    return caller


Parts = Annotated[Control, Depends(control_of)]
Asking = Annotated[Caller, Depends(caller_of)]


def reading(parts: Parts, caller: Asking) -> Iterator[Session]:
    """A transaction that reads, for a namespace that there is."""
    with parts.db.read() as session:
        namespaces.require(session, caller.namespace)
        yield session


def writing(parts: Parts, caller: Asking) -> Iterator[Session]:
    """A transaction that writes; committed before the answer is sent."""
    with parts.db.begin() as session:
        namespaces.require(session, caller.namespace)
        yield session


# Of a function's scope: a transaction is over before the answer is sent, so what is answered is so.
Reading = Annotated[Session, Depends(reading, scope="function")]
Writing = Annotated[Session, Depends(writing, scope="function")]
Limit = Annotated[int, Query(ge=1, le=MOST_PAGE, description="Most in a page.")]
AfterId = Annotated[
    str | None,
    Query(
        pattern="^[a-z]+_[0-9a-f]{32}$",  # a damaged one would find an end, or the beginning
        description="The `next` of the page before this one.",
    ),
]
After = Annotated[
    str | None, Query(max_length=128, description="The `next` of the page before this one.")
]


def _storable(moment: datetime) -> datetime:
    """A time that stays one in every zone."""
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError(f"a time is between the years {FIRST_YEAR} and {LAST_YEAR}")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_storable)]


def everywhere(caller: Asking) -> None:
    """Let pass who may act in every namespace.

    Raises:
        RequestError: The caller's key is bound to one (403).
    """
    caller.require_all_namespaces()


def found(thing: Thing | None, what: str, name: str) -> Thing:
    """What was looked for.

    Raises:
        RequestError: It is not there, or not in the caller's namespace (404).
    """
    if thing is None:
        raise RequestError(404, f"There is no {what} {name[:128]!r} here.", code="not_found")
    return thing
