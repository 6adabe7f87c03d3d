"""Failpoints: places where a test kills this process, as SIGKILL or a power failure would.

`BYHEART_FAILPOINT=NAME:N` kills the process when it reaches failpoint NAME for the Nth time. The
variable is set only by durability tests; otherwise a failpoint costs one comparison.
"""

import itertools
import os
import signal

ENVIRONMENT = "BYHEART_FAILPOINT"

_armed: tuple[str, int] | None = None
_reached = itertools.count(1)


def arm(setting: str) -> None:
    """Arm the failpoint that `NAME:N` names; an empty string disarms."""
    global _armed, _reached
    name, _, number = setting.partition(":")
    _armed = (name, int(number or 1)) if name else None
    _reached = itertools.count(1)


def reach(name: str) -> None:
    """Kill this process if the failpoint `name` is armed and this is its Nth pass."""
    if _armed is not None and _armed[0] == name and next(_reached) == _armed[1]:
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(ENVIRONMENT, ""))
