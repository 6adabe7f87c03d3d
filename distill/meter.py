"""How fast a run goes and how much memory it takes; for its row, never for its adapter folder."""

import resource
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

GIB = 2**30


@dataclass
class Meter:
    """Counts trained tokens from when it is made."""

    timer: Callable[[], float]
    """Seconds, monotonic."""
    tokens: int = 0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.timer()

    def count(self, tokens: int) -> dict[str, float]:
        """Add a step's completion tokens.

        Returns:
            tokens_per_s: Completion tokens a second so far, sampling and scoring included.
            peak_memory_gib: Of the accelerator, or else resident in this process.
        """
        self.tokens += tokens
        seconds = max(self.timer() - self.began, 1e-9)
        return {"tokens_per_s": self.tokens / seconds, "peak_memory_gib": peak_memory() / GIB}


def peak_memory() -> int:
    """Most bytes that were in use at once."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
