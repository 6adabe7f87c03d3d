"""Several processes that train one adapter together (data parallel), in teams that share a base.

`torchrun --nproc-per-node N -m distill ...` (or `accelerate launch`) starts them. Each step's
trajectories are sampled and scored in shares, one team each; everybody gets all of them, takes the
gradient of its share under the step's global denominators, and adds the others'. So all hold the
same adapter, and the result is that of one process up to the order of sums. The first team alone
prepares and measures, its first member alone writes and reports.

A team is one process, unless the base does not fit one GPU: then each member keeps a part of every
layer (FSDP2, `torch.distributed.fsdp.fully_shard`), and a forward pass has one whole layer at a
time. Only the frozen base is divided; the adapter is small. Members do the same work in step, since
each pass of one needs the parts of all: they save memory, the number of teams saves time.
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
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from distill.model.base import ModelError

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: one that dies ends them all, so it is only slow."""

# The second by the name from which PEFT knows that a layer's weight is whole when it is used.
TEAM, MEMBER = "team", "fsdp"

T = TypeVar("T")


class InvalidWorldSize(Exception):
    """The processes do not divide into teams of so many members."""


@dataclass(frozen=True)
class ParallelState:
    """This process among those that train together."""

    rank: int = 0
    """Of its team."""
    count: int = 1
    """Of teams."""
    member: int = 0
    """Its place in its team."""
    mesh: DeviceMesh | None = None
    """Teams by members; None where each team is one process."""

    @property
    def is_main_process(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == self.member == 0

    def shard(self, model: PreTrainedModel) -> None:
        """Keep of each layer only this member's part; of a team of one nothing changes.

        Raises:
            ModelError: The model does not say what its layers are.
        """
        if self.mesh is None:
            return
        names = set(model._no_split_modules or ())
        layers = [part for part in model.modules() if type(part).__name__ in names]
        if not layers:
            raise ModelError("This model does not name its layers; distill.shards must be 1.")
        for layer in layers:
            # By default a layer that stands by itself would stay whole after its first pass.
            fully_shard(layer, mesh=self.mesh[MEMBER], reshard_after_forward=True)

    def run_on_first_shard(self, make: Callable[[], T]) -> T:
        """What the first member of the team makes, alone and without the model."""
        if self.mesh is None:
            return make()
        return _heard(make, self.member == 0, self.mesh.get_group(MEMBER))

    def local_items(self, items: Sequence[T]) -> list[T]:
        """What of `items` is this team's to do."""
        return list(items[self.rank :: self.count])

    def gather(self, done: list[T]) -> list[T]:
        """All teams' shares, put back in the order of the items."""
        if self.count == 1:
            return done
        parts: list[bytes | None] = [None] * self.count
        dist.all_gather_object(parts, _packed(done), group=self._across)
        shares = [_unpacked(part) for part in parts if part is not None]
        merged: list[T] = [None] * sum(map(len, shares))  # type: ignore[list-item]
        for rank, share in enumerate(shares):
            merged[rank :: self.count] = share
        return merged

    def run_on_first_replica(self, make: Callable[[], T]) -> T:
        """What the first team makes, for everybody; an exception of it is everybody's too."""
        if self.count == 1 and self.mesh is None:
            return make()
        return _heard(make, self.rank == 0, None)

    def all_reduce(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all teams."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self._across)

    @property
    def _across(self) -> dist.ProcessGroup | None:
        """The processes at this one's place in all teams; None means all processes."""
        return self.mesh.get_group(TEAM) if self.mesh else None


SINGLE_PROCESS = ParallelState()


def init_parallel(members: int = 1) -> ParallelState:
    """Meet the other processes of a launcher, where there is one, in teams of `members`.

    Raises:
        InvalidWorldSize: They do not divide into such teams.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count % members:
        raise InvalidWorldSize(
            f"distill.shards = {members} needs a multiple of {members} processes; "
            f"{count} were started (distill.processes, or torchrun --nproc-per-node)."
        )
    if count == 1:
        return SINGLE_PROCESS
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        # Gloo's threads abort a process that ends with the group still there.
        atexit.register(shutdown_parallel)
    if members == 1:
        return ParallelState(dist.get_rank(), count)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (count // members, members)
    mesh = init_device_mesh(kind, shape, mesh_dim_names=(TEAM, MEMBER))
    return ParallelState(mesh.get_local_rank(TEAM), shape[0], mesh.get_local_rank(MEMBER), mesh)


def is_main_process() -> bool:
    """Whether this is the one of all processes that speaks, also before they have met."""
    return os.environ.get("RANK", "0") == "0"


def shutdown_parallel() -> None:
    """Leave the other processes; all do so once they have nothing more to share."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _heard(make: Callable[[], T], makes: bool, group: dist.ProcessGroup | None) -> T:
    """What the first of a group makes; others of it may have to help making it."""
    packed: list[bytes | None] = [None]
    own: Exception | None = None
    if makes:
        try:
            packed = [_packed((make(), None))]
        except Exception as error:  # noqa: BLE001 - boundary: passed on to all processes
            own = error
            packed = [_packed((None, picklable(error)))]
    dist.broadcast_object_list(packed, group=group, group_src=0)
    assert packed[0] is not None
    made, failed = _unpacked(packed[0])
    if failed is not None:
        raise own or failed
    return made  # type: ignore[no-any-return]


def picklable(error: Exception) -> Exception:
    """An error that another process can read: itself, or its words where it cannot be packed."""
    try:
        _unpacked(_packed(error))
    except Exception:  # noqa: BLE001 - whatever it is made of
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _packed(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpacked(content: bytes) -> Any:  # noqa: ANN401
    # Of a process of this very run.
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
