"""Run a command that cannot outlive its parent: `python guard.py [--grace SECONDS] -- CMD...`.

The guard is a process between the daemon and a child (vLLM, the trainer). It starts the child in a
new session, waits for it, and exits with its exit code (128 + signal number if a signal ended it,
as in shells).

On SIGTERM, or at the end of file on its stdin, which follows the daemon's death in every case, the
guard ends the child and all descendants: SIGTERM, a grace period, SIGKILL. It is the subreaper of
its descendants, so it also finds those whose parent died or that started new sessions: when the
guard exits, none is left.

It uses only the standard library and is run by path, because the child's working directory and
module path are not ours. If the guard itself is killed, its child is killed too (PR_SET_PDEATHSIG);
only in this case may the child's own children survive.
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
"""For descendants whose parent has exited: no process is left to shut them down in order."""
KILL_TIMEOUT_S = 10.0
POLL_S = 0.05
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main(argv: list[str]) -> int:
    """Run the command after `--` and return its exit code."""
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
    """Return a descriptor that yields the number of each signal received, including SIGCHLD.

    SIGINT and SIGHUP are handled but have no effect: a terminal sends them to the whole process
    group, and the daemon decides in which order its children end.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def _wait(child: subprocess.Popen[bytes], woken: int) -> None:
    """Return when the child has exited, or when the guard has to end it."""
    while child.poll() is None:
        readable, _, _ = select.select([woken, sys.stdin], [], [])
        if sys.stdin in readable and not os.read(sys.stdin.fileno(), 4096):
            return
        if woken in readable and signal.SIGTERM in os.read(woken, 4096):
            return
        _remaining(child)


def _end(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Terminate the child, then its remaining descendants; kill those that do not exit."""
    if child.poll() is None:
        _signal(signal.SIGTERM, [child.pid])
        _poll(lambda: child.poll() is not None, grace_s)
    _signal(signal.SIGTERM, _remaining(child))
    _poll(lambda: not _remaining(child), ORPHAN_GRACE_S)
    # Repeatedly: a process may start another one just before it is killed.
    _poll(lambda: not _signal(signal.SIGKILL, _remaining(child)), KILL_TIMEOUT_S)


def _poll(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _remaining(child: subprocess.Popen[bytes]) -> list[int]:
    """Reap the descendants that have exited; return the others."""
    child.poll()
    for pid in descendants(os.getpid()):
        # Not the child: Popen collects its exit code.
        if pid != child.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return descendants(os.getpid())


def descendants(root: int) -> list[int]:
    """Return the ids of all processes below `root`, children before grandchildren."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command name, in parentheses, may contain anything; the parent is the second
            # field after it.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    pids = [root]
    for pid in pids:
        pids.extend(children.get(pid, ()))
    return pids[1:]


def _signal(number: signal.Signals, pids: list[int]) -> list[int]:
    """Send a signal to all of `pids`, and return them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
