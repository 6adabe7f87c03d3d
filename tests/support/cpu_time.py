"""`max_cpu_s()`: bounds the CPU time of a block, to rule out costs beyond linear ones."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def max_cpu_s(limit: float) -> Iterator[None]:
    """Fail if the block uses more CPU time than this.

    CPU time of this process, not the time that passes: other processes do not count. Inputs are
    chosen so that a quadratic algorithm takes many times the limit.
    """
    start = time.process_time()
    yield
    used = time.process_time() - start
    assert used < limit, f"{used:.2f} s of CPU time, at most {limit} s expected"
