"""Measurements in processes of their own, so that one's memory is not another's."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure_apart(
    measure: Callable[..., None],
    *arguments: str | int,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Call a function of a module here in a process of its own.

    Args:
        measure: The function.
        arguments: Its arguments.
        settings: Beside this process's environment, that process's.

    Returns:
        What it printed last, as JSON.
    """
    name, told = measure.__name__, ", ".join(map(repr, arguments))
    module = Path(measure.__code__.co_filename).stem
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.bench.{module} import {name}; {name}({told})"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"} | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def forget_peak() -> None:
    """From now on `VmHWM` is the peak of what comes."""
    CLEAR_REFS.write_text("5")


def memory_mib(name: str) -> float:
    """A size of this process from /proc."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise LookupError(name)
