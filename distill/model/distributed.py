"""Data-parallel training of one adapter, with optional FSDP sharding of the base.

`torchrun --nproc-per-node N -m distill ...` (or `accelerate launch`) starts the processes. The
world is a mesh of replicas x shards:

- A replica samples and scores its part of each step's trajectories, and computes the gradient of
  its part under the step's global denominators. Trajectories are all-gathered and gradients
  all-reduced, so every process holds the same adapter, and the result equals that of one process up
  to summation order. The first replica prepares and evaluates.
- A replica has one shard unless the base does not fit one GPU. Then FSDP2 (`fully_shard`) splits
  each layer over the replica's shards and gathers one layer at a time in a forward pass. Only the
  frozen base is sharded; the adapter is small. The shards of a replica compute the same batch, so
  more shards save memory and more replicas save time.

The main process, shard 0 of replica 0, writes files and reports progress.
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

TIMEOUT = timedelta(hours=12)
"""A dead process ends the others through the launcher, so a silent one is only slow."""

# PEFT recognises by the name "fsdp" that a layer's weight is complete while it is used.
REPLICA, SHARD = "replica", "fsdp"

T = TypeVar("T")


class InvalidWorldSize(Exception):
    """The world size is not a multiple of `distill.shards`."""


@dataclass(frozen=True)
class ParallelState:
    """The position of this process in the mesh of replicas and shards."""

    replica: int = 0
    """Index of this process's replica."""
    replicas: int = 1
    """Number of replicas."""
    shard_index: int = 0
    """Index of this process within its replica."""
    mesh: DeviceMesh | None = None
    """Replicas x shards; None where a replica is one process."""

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.replica == self.shard_index == 0

    def shard(self, model: PreTrainedModel) -> None:
        """Keep only this process's shard of each layer; a no-op without a mesh.

        Raises:
            ModelError: The model does not declare its layer classes.
        """
        if self.mesh is None:
            return
        names = set(model._no_split_modules or ())
        layers = [module for module in model.modules() if type(module).__name__ in names]
        if not layers:
            raise ModelError("The model does not declare its layers; distill.shards must be 1.")
        for layer in layers:
            # By default, FSDP keeps a root module unsharded after its first forward pass.
            fully_shard(layer, mesh=self.mesh[SHARD], reshard_after_forward=True)

    def run_on_first_shard(self, function: Callable[[], T]) -> T:
        """Call `function` on shard 0 and broadcast its result within the replica.

        The function must not run the model, whose layers need all shards.
        """
        if self.mesh is None:
            return function()
        return _broadcast(function, self.shard_index == 0, self.mesh.get_group(SHARD))

    def run_on_first_replica(self, function: Callable[[], T]) -> T:
        """Call `function` on replica 0 and broadcast its result, or its exception, to all."""
        if self.replicas == 1 and self.mesh is None:
            return function()
        return _broadcast(function, self.replica == 0, None)

    def local_items(self, items: Sequence[T]) -> list[T]:
        """Return the items that this replica processes."""
        return list(items[self.replica :: self.replicas])

    def gather(self, local: list[T]) -> list[T]:
        """All-gather the replicas' items, in the order before `local_items` split them."""
        if self.replicas == 1:
            return local
        packed: list[bytes | None] = [None] * self.replicas
        dist.all_gather_object(packed, _pack(local), group=self._replica_group)
        parts = [_unpack(part) for part in packed if part is not None]
        gathered: list[T] = [None] * sum(map(len, parts))  # type: ignore[list-item]
        for replica, part in enumerate(parts):
            gathered[replica :: self.replicas] = part
        return gathered

    def all_reduce(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all replicas."""
        if self.replicas > 1:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self._replica_group)

    @property
    def _replica_group(self) -> dist.ProcessGroup | None:
        """The processes with this shard index in all replicas; None means the whole world."""
        return self.mesh.get_group(REPLICA) if self.mesh else None


SINGLE_PROCESS = ParallelState()


def init_parallel(shards: int = 1) -> ParallelState:
    """Join the process group of a launcher, if there is one.

    Args:
        shards: Processes per replica.

    Raises:
        InvalidWorldSize: The world size is not a multiple of `shards`.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size % shards:
        raise InvalidWorldSize(
            f"distill.shards = {shards} needs a multiple of {shards} processes; "
            f"{world_size} were started (distill.processes, or torchrun --nproc-per-node)."
        )
    if world_size == 1:
        return SINGLE_PROCESS
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT)
        # Gloo's threads abort a process that exits while the group exists.
        atexit.register(shutdown_parallel)
    if shards == 1:
        return ParallelState(dist.get_rank(), world_size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (world_size // shards, shards)
    mesh = init_device_mesh(device, shape, mesh_dim_names=(REPLICA, SHARD))
    return ParallelState(mesh.get_local_rank(REPLICA), shape[0], mesh.get_local_rank(SHARD), mesh)


def is_main_process() -> bool:
    """Whether the launcher's rank is 0; works before `init_parallel`."""
    return os.environ.get("RANK", "0") == "0"


def shutdown_parallel() -> None:
    """Leave the process group; every process calls it after the last collective."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _broadcast(function: Callable[[], T], is_source: bool, group: dist.ProcessGroup | None) -> T:
    """Return what `function` returns, or raise what it raises, on rank 0 of the group.

    Other sources call it too: the shards of a replica compute together.
    """
    packed: list[bytes | None] = [None]
    own_error: Exception | None = None
    if is_source:
        try:
            packed = [_pack((function(), None))]
        except Exception as error:  # noqa: BLE001 - boundary: re-raised in all processes
            own_error = error
            packed = [_pack((None, picklable(error)))]
    dist.broadcast_object_list(packed, group=group, group_src=0)
    assert packed[0] is not None
    result, failure = _unpack(packed[0])
    if failure is not None:
        raise own_error or failure
    return result  # type: ignore[no-any-return]


def picklable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its text if it cannot be pickled."""
    try:
        _unpack(_pack(error))
    except Exception:  # noqa: BLE001 - pickling may raise anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _pack(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpack(content: bytes) -> Any:  # noqa: ANN401
    # Trusted: written by a process of this run.
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)
