"""Benchmarks: each module is a command, and says how long it takes."""

import distill  # noqa: F401 - before torch: it decides how the threads of a process wait
