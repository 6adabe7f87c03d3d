"""Several processes that train one adapter together, each with the whole model (data parallel).

`torchrun --nproc-per-node N -m distill ...` (or `accelerate launch`) starts them. Each step's
trajectories are sampled and scored in shares, one process each; everybody gets all of them, takes
the gradient of its share under the step's global denominators, and adds the others'. So all hold
the same weights, and the result is that of one process up to the order of sums. The first process
alone prepares, measures, writes and reports.
"""

import atexit
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: one that dies ends them all, so it is only slow."""

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """What of `items` is this process's to do."""
        return list(items[self.rank :: self.count])

    def merged(self, done: list[T]) -> list[T]:
        """Everybody's shares, put back in the order of the items."""
        if self.count == 1:
            return done
        parts: list[bytes | None] = [None] * self.count
        dist.all_gather_object(parts, _packed(done))
        shares = [_unpacked(part) for part in parts if part is not None]
        merged: list[T] = [None] * sum(map(len, shares))  # type: ignore[list-item]
        for rank, share in enumerate(shares):
            merged[rank :: self.count] = share
        return merged

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for everybody; an exception of it is everybody's too."""
        if self.count == 1:
            return make()
        packed: list[bytes | None] = [None]
        if self.is_first:
            try:
                packed = [_packed((make(), None))]
            except Exception as error:  # noqa: BLE001 - boundary: passed on to all processes
                packed = [_packed((None, error))]
        dist.broadcast_object_list(packed)
        assert packed[0] is not None
        made, failed = _unpacked(packed[0])
        if failed is not None:
            raise failed
        return made  # type: ignore[no-any-return]

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)


ALONE = Processes()


def join() -> Processes:
    """Meet the other processes of a launcher, where there is one."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        # Gloo's threads abort a process that ends with the group still there.
        atexit.register(leave)
    return Processes(dist.get_rank(), count)


def leave() -> None:
    """Leave the other processes; all do so once they have nothing more to share."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _packed(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpacked(content: bytes) -> Any:  # noqa: ANN401
    # Of a process of this very run.
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
