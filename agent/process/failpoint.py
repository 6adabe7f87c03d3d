"""Points at which a test has this process killed, as by SIGKILL or a power cut.

`BYHEART_FAILPOINT=NAME:N` kills it when it reaches NAME for the N-th time; unset, as always but in
tests of durability, reaching a point is a comparison. The names stand where they are reached.
"""

import itertools
import os
import signal

ENVIRONMENT = "BYHEART_FAILPOINT"

_armed: tuple[str, int] | None = None
_reached = itertools.count(1)


def arm(setting: str) -> None:
    """Kill this process at the point and the time that `NAME:N` says; empty: never."""
    global _armed, _reached
    name, _, number = setting.partition(":")
    _armed = (name, int(number or 1)) if name else None
    _reached = itertools.count(1)


def reach(name: str) -> None:
    """Pass a point, or end there."""
    if _armed is not None and _armed[0] == name and next(_reached) == _armed[1]:
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(ENVIRONMENT, ""))
