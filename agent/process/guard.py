"""Run a command that cannot outlive its parent: `python guard.py [--grace SECONDS] -- CMD...`.

Stands between the daemon and a child of it (vLLM, the trainer). The child gets a session of its
own; the guard waits for it and exits with its exit code (128 + the signal's number, as shells
do). When the guard's stdin reaches its end, which happens however the daemon dies, or on SIGTERM,
it ends the child and every descendant: SIGTERM, a grace, SIGKILL. The guard is the subreaper of
its descendants, so those whose parent died, or that made sessions of their own, are found too:
when the guard exits, none is left.

Standard library only, run by its path: neither the working directory nor the module path of the
child is ours. A guard that is itself killed takes its child with it (PR_SET_PDEATHSIG); only then
may the child's own children live on.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

GRACE_S = 10.0
ORPHAN_GRACE_S = 2.0
"""For descendants whose parent is gone: nobody is left who could end them in order."""
LAST_RESORT_S = 10.0
POLL_S = 0.05
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main(argv: list[str]) -> int:
    """Run the command after `--`; the exit code is its own."""
    grace_s, command = _parse(argv)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    woken = _wake_on_signals()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    _wait(child, woken)
    _end(child, grace_s)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _parse(argv: list[str]) -> tuple[float, list[str]]:
    match argv:
        case ["--grace", seconds, "--", *command] if command:
            return float(seconds), command
        case ["--", *command] if command:
            return GRACE_S, command
    raise SystemExit("usage: python guard.py [--grace SECONDS] -- COMMAND...")


def _wake_on_signals() -> int:
    """A descriptor that yields the numbers of the signals that arrive, SIGCHLD among them.

    SIGINT and SIGHUP are taken and passed over: a terminal sends them to the whole group, and in
    which order things end is for the daemon to say.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def _wait(child: subprocess.Popen[bytes], woken: int) -> None:
    """Return when the child has exited, or when it is to end."""
    while child.poll() is None:
        readable, _, _ = select.select([woken, sys.stdin], [], [])
        if sys.stdin in readable and not os.read(sys.stdin.fileno(), 4096):
            return
        if woken in readable and signal.SIGTERM in os.read(woken, 4096):
            return
        _remaining(child)


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask the child to end, then what it left behind, and kill what does not."""
    if child.poll() is None:
        _signal(signal.SIGTERM, [child.pid])
        _poll(lambda: child.poll() is not None, grace_s)
    _signal(signal.SIGTERM, _remaining(child))
    _poll(lambda: not _remaining(child), ORPHAN_GRACE_S)
    # Again and again: one that is being killed may have had children that nobody knew of.
    _poll(lambda: not _signal(signal.SIGKILL, _remaining(child)), LAST_RESORT_S)


def _poll(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _remaining(child: subprocess.Popen[bytes]) -> list[int]:
    """Descendants that have not ended; those that have are reaped on the way."""
    child.poll()
    for pid in descendants(os.getpid()):
        # Not the child: its exit code is Popen's to collect.
        if pid != child.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return descendants(os.getpid())


def descendants(root: int) -> list[int]:
    """Process ids below `root`, children before grandchildren."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command, in parentheses, may hold anything; the parent is the second field after.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found[1:]


def _signal(number: signal.Signals, pids: list[int]) -> list[int]:
    """Send a signal to all of `pids`; returns them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
