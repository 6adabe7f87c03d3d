"""The guard: no process is left, however the parent ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.process import guard
from tests.support.until import until_sync

DEADLINE_S = 15.0

FAMILY = """
import os, subprocess, sys, time
from pathlib import Path
note = Path(sys.argv[1])
if os.fork() == 0:
    os.setsid()                       # a session of its own, as a daemon would
    if os.fork() == 0:
        (note / "grandchild").write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)                       # its parent is gone at once
other = subprocess.Popen(["sleep", "600"])
(note / "other").write_text(str(other.pid))
(note / "child").write_text(str(os.getpid()))
time.sleep(600)
"""
STUBBORN = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(sys.argv[1], "child").write_text(str(__import__("os").getpid()))
time.sleep(600)
"""
PARENT = """
import subprocess, sys
subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE).wait()
"""


def guarded(code: str, *args: object, grace_s: float = 5.0) -> list[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return [sys.executable, "-I", guard.__file__, "--grace", str(grace_s), "--", *command]


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def pid_in(path: Path) -> int:
    until_sync(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize(("code", "expected"), [("raise SystemExit(7)", 7), ("", 0)])
def test_the_exit_code_is_the_childs(code: str, expected: int) -> None:
    with start(guarded(code)) as process:
        assert process.wait(DEADLINE_S) == expected


def test_a_child_ended_by_a_signal_is_reported_as_a_shell_does() -> None:
    with start(guarded("import os; os.kill(os.getpid(), 9)")) as process:
        assert process.wait(DEADLINE_S) == 128 + signal.SIGKILL


def test_the_child_has_the_callers_output_and_working_directory(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), sys.stdin.read() == '')"

    with subprocess.Popen(
        guarded(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout
        output = process.stdout.read()

    assert output == f"{tmp_path} True\n"


def test_killing_the_parent_ends_every_descendant(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *guarded(FAMILY, tmp_path)])
    family = [pid_in(tmp_path / name) for name in ("grandchild", "other", "child")]
    assert all(map(is_running, family))

    parent.kill()
    parent.wait()

    until_sync(lambda: not any(map(is_running, family)))


def test_sigterm_ends_every_descendant_before_the_guard_exits(tmp_path: Path) -> None:
    with start(guarded(FAMILY, tmp_path)) as process:
        family = [pid_in(tmp_path / name) for name in ("grandchild", "other", "child")]

        process.terminate()

        assert process.wait(DEADLINE_S) == 128 + signal.SIGTERM
        assert not any(map(is_running, family))


def test_descendants_of_a_crashed_child_are_ended(tmp_path: Path) -> None:
    with start(guarded(FAMILY, tmp_path)) as process:
        child, other, grandchild = (
            pid_in(tmp_path / name) for name in ("child", "other", "grandchild")
        )

        os.kill(child, signal.SIGKILL)

        assert process.wait(DEADLINE_S) == 128 + signal.SIGKILL
        assert not any(map(is_running, (other, grandchild)))


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    with start(guarded(STUBBORN, tmp_path, grace_s=0.3)) as process:
        child = pid_in(tmp_path / "child")
        began = time.monotonic()

        process.terminate()

        assert process.wait(DEADLINE_S) == 128 + signal.SIGKILL
        # A lower bound, which a slow machine cannot break: no event says that a kill is due.
        assert time.monotonic() - began >= 0.3
        assert not is_running(child)


def test_the_guard_ignores_sigint_and_sighup(tmp_path: Path) -> None:
    with start(guarded(FAMILY, tmp_path)) as process:
        child = pid_in(tmp_path / "child")

        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        # An ignored signal causes no event; a guard that ends its child exits within this time.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)

        assert is_running(child)
        process.terminate()


def test_killing_the_guard_ends_the_child(tmp_path: Path) -> None:
    with start(guarded(STUBBORN, tmp_path)) as process:
        child = pid_in(tmp_path / "child")

        process.kill()

        until_sync(lambda: not is_running(child))


@pytest.mark.parametrize("arguments", [[], ["--"], ["true"], ["--grace", "--", "true"]])
def test_invalid_arguments_are_rejected(arguments: list[str]) -> None:
    process = subprocess.run(
        [sys.executable, "-I", guard.__file__, *arguments],
        input=b"",
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert process.returncode != 0
    assert b"usage" in process.stderr
