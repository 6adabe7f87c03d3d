"""Files and folders appear whole or not at all, and killed processes leave no litter for long."""

import os
import signal
import subprocess
import sys

import pytest

from distill import atomic

STAGE_AND_WAIT = """
import sys
from pathlib import Path
from distill import atomic
with atomic.staging(Path(sys.argv[1])):
    print("staged", flush=True)
    sys.stdin.read()
"""


def test_a_staged_folder_is_gone_unless_it_was_settled(tmp_path):
    with atomic.staging(tmp_path) as kept:
        (kept / "file").write_text("text")
        atomic.settle(kept, tmp_path / "target")
    with atomic.staging(tmp_path):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_a_killed_process_staged_is_removed_and_what_a_living_one_stages_is_not(tmp_path):
    command = [sys.executable, "-c", STAGE_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"staged\n"
        [theirs] = tmp_path.iterdir()
        with atomic.staging(tmp_path) as ours:
            assert set(tmp_path.iterdir()) == {theirs, ours}
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert list(tmp_path.iterdir()) == [theirs]
        with atomic.staging(tmp_path) as ours:
            assert list(tmp_path.iterdir()) == [ours]


def test_a_written_file_replaces_the_one_before(tmp_path):
    for content in (b"one", b"other"):
        atomic.write_file(tmp_path / "new" / "file", content)

    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"other"]


def test_on_a_full_disk_a_file_stays_as_it_was_and_the_error_names_it(tmp_path):
    atomic.write_file(tmp_path / "file", b"one")

    (tmp_path / ".file.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/file'"):
        atomic.write_file(tmp_path / "file", b"other")

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"one"]
