"""Files and folders appear complete or not at all; leftovers of killed processes are removed."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from store import durable_files

STAGE_AND_WAIT = """
import sys
from pathlib import Path
from store import durable_files
with durable_files.staging(Path(sys.argv[1])):
    print("staged", flush=True)
    sys.stdin.read()
"""


def test_a_staged_folder_is_removed_unless_it_was_published(tmp_path):
    with durable_files.staging(tmp_path) as kept:
        (kept / "file").write_text("text")
        durable_files.publish(kept, tmp_path / "target")
    with durable_files.staging(tmp_path):
        pass

    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_only_staged_folders_of_killed_processes_are_removed(tmp_path):
    command = [sys.executable, "-c", STAGE_AND_WAIT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"staged\n"
        [theirs] = tmp_path.iterdir()
        with durable_files.staging(tmp_path) as ours:
            assert set(tmp_path.iterdir()) == {theirs, ours}
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert list(tmp_path.iterdir()) == [theirs]
        with durable_files.staging(tmp_path) as ours:
            assert list(tmp_path.iterdir()) == [ours]


def test_writing_a_file_replaces_the_earlier_one(tmp_path):
    for content in (b"one", b"other"):
        durable_files.write_file(tmp_path / "new" / "file", content)

    assert [path.read_bytes() for path in (tmp_path / "new").iterdir()] == [b"other"]


def test_writing_a_file_replaces_a_link_instead_of_following_it(tmp_path):
    (tmp_path / "other").write_bytes(b"another's")
    (tmp_path / ".file.partial").symlink_to(tmp_path / "other")

    durable_files.write_file(tmp_path / "file", b"one")

    assert (tmp_path / "other").read_bytes() == b"another's"
    assert (tmp_path / "file").read_bytes() == b"one"


def test_on_a_full_disk_the_file_is_unchanged_and_the_error_names_it(tmp_path):
    durable_files.write_file(tmp_path / "file", b"one")

    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, most[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '{tmp_path}/file'"):
            durable_files.write_file(tmp_path / "file", b"other")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"one"]
