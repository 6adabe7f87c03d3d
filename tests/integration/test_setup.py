"""`.ci/setup` with a pip that only records its arguments."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = "--find-links https://download.pytorch.org/whl/cpu/torch/"
PYTHON = """#!/bin/sh
# Makes a virtual environment out of two stand-ins.
echo "$@" >> made
rm -rf .venv && mkdir -p .venv/bin
printf '#!/bin/sh\\n' > .venv/bin/python
cp pip .venv/bin/pip
chmod +x .venv/bin/*
"""
PIP = """#!/bin/sh
case "$1" in config) cat configuration ;; *) echo "$@" >> asked; exit "$(cat code)" ;; esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".ci").mkdir()
    shutil.copy(".ci/setup", tmp_path / ".ci" / "setup")
    contents = {"python": PYTHON, "pip": PIP, "configuration": "", "code": "0", "made": ""}
    contents |= {"requirements-cpu.lock": "torch\n", "requirements-gpu.lock": "cuda\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


@pytest.fixture
def setup(project: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    def run(engine: str) -> subprocess.CompletedProcess[str]:
        command = [project / ".ci" / "setup", engine, project / "python"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    ("engine", "configuration", "told"),
    [
        ("cpu", "", True),
        ("cpu", "global.timeout='60'\n", True),
        ("cpu", ":env:.find-links='/wheels'\n", False),
        ("cpu", "global.index-url='https://mirror/simple'\n", False),
        ("cpu", "global.extra-index-url='https://mirror/simple'\n", False),
        ("gpu", "", False),
    ],
)
def test_pip_gets_the_index_of_torchs_cpu_build_unless_one_is_configured(
    project, setup, engine, configuration, told
):
    (project / "configuration").write_text(configuration)

    assert setup(engine).returncode == 0

    [packages, _] = (project / "asked").read_text().splitlines()
    assert (PAGE in packages) is told
    assert "--no-deps --require-hashes" in packages


def test_a_pip_failure_is_followed_by_the_remedy(project, setup):
    (project / "code").write_text("1")

    done = setup("cpu")

    assert done.returncode == 1
    assert "pip's find-links" in done.stderr


def test_environments_of_another_lock_or_an_interrupted_installation_are_replaced(project, setup):
    def environments() -> int:
        return len((project / "made").read_text().splitlines())

    setup("cpu")
    setup("cpu")
    assert environments() == 1
    setup("gpu")
    assert environments() == 2
    (project / "requirements-gpu.lock").write_text("cuda 2\n")
    (project / "code").write_text("1")
    setup("gpu")
    (project / "code").write_text("0")
    setup("gpu")
    assert environments() == 4
