"""One run over several processes, one a GPU, under torchrun.

    torchrun --nproc-per-node 8 -m optlaws train run.yaml --out runs/large

Every process computes the gradient of its share of each batch and the shares are averaged, so the run is the one that a
single process would train, up to rounding. With `parallel: ddp` (`DistributedDataParallel`) every process holds the
whole model; with `parallel: fsdp` (`fully_shard`) parameters, gradients and optimizer states are cut along their first
axis and each process keeps its piece; the parameters of a layer are put together while it computes. Only the first
process writes; the folder must be one that all can read, for checkpoints are read by all. A checkpoint is the same file
however the run was shared out, so that a run may go on with another number of processes, or in the other way.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group: default arguments in it would keep the group for ever
from torch import Tensor, nn

from optlaws.errors import InputError
from optlaws.harness._fields import wrong
from optlaws.harness.config import TrainConfig
from optlaws.harness.optim import ON_SHARDS

PROGRAMS = 64

_groups: list[Any] = []  # of processes, and meshes over them, that this process has made or met
_meshes: list[Any] = []
_own: list[Any] = []  # those of the groups that this process has made


@dataclass(frozen=True)
class World:
    """The processes of one run: the place of this one, how many there are, its place on its machine, how they share."""

    rank: int = 0
    size: int = 1
    local: int = 0
    parallel: str = "ddp"

    @classmethod
    def of_environment(cls, parallel: str = "ddp") -> World:
        """Return what torchrun says in the environment; one process where it says nothing.

        Raises
        ------
        InputError
            If the variables are no numbers.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        given = [os.environ.get(name) for name in names]
        if None in given or "MASTER_ADDR" not in os.environ:
            return cls()
        try:
            rank, size, local = (int(value or "") for value in given)
        except ValueError:
            raise InputError(
                f"{', '.join(names)} in the environment must be whole numbers, got {given}; start with torchrun"
            ) from None
        return cls(rank, size, local, parallel)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether each process keeps a piece of every parameter only."""
        return self.size > 1 and self.parallel == "fsdp"

    def share(self, batch: int) -> tuple[int, int]:
        """Return the first sequence of this process's share of a batch, and how many there are."""
        return self.rank * (batch // self.size), batch // self.size

    def wrap(self, model: Any, compiled: bool, device: torch.device) -> Any:
        """Return the model to be called, its gradients averaged over the processes; `fsdp` shards `model` itself."""
        if compiled:  # one program a shape: a sweep has more of them than torch thinks sensible
            settings = torch._dynamo.config
            settings.recompile_limit = max(PROGRAMS, settings.recompile_limit)
            # All sizes are fixed but the number of models in a stack, which `StackEngine` marks, and experts' loads.
            settings.automatic_dynamic_shapes = settings.force_parameter_static_shapes = False
            for block in getattr(model, "blocks", []):
                block.mix = torch.compiler.disable(block.mix)
        if self.sharded:
            return _shard(model, compiled, device)
        called = torch.compile(model) if compiled else model
        if self.size == 1:
            return called
        return nn.parallel.DistributedDataParallel(called)

    @contextmanager
    def gradients(self, model: Any, *, last: bool) -> Iterator[None]:
        """Average the gradients of one part of a batch, with those of the parts before, if it is the `last` part."""
        if self.sharded:
            model.set_requires_gradient_sync(last)
        with contextlib.nullcontext() if self.size == 1 or self.sharded or last else model.no_sync():
            yield

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes, of its shape; `value` is written over."""
        if self.size > 1:
            dist.all_reduce(value)
            value = value / self.size
        return value

    def any(self, said: bool, device: torch.device) -> bool:
        """Return whether any process says so; all must ask at the same update."""
        if self.size == 1:
            return said
        flag = torch.tensor(float(said), device=device)
        dist.all_reduce(flag)
        return bool(flag.item() > 0)

    def told(self, value: str) -> str:
        """Return the value that the first process has, to all of them."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            return box[0]
        return value

    def wait(self) -> None:
        """Wait for the other processes."""
        if self.size > 1:
            dist.barrier()


def _shard(model: nn.Module, compiled: bool, device: torch.device) -> nn.Module:
    """Cut the parameters of a model, block by block, and move them to the device."""
    from torch.distributed.device_mesh import init_device_mesh  # half a second, for those who need it
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    _meshes.append(mesh)
    blocks: Any = getattr(model, "blocks", [])
    for i, block in enumerate(blocks):
        if compiled:  # block by block, so that what puts the parameters together lies between the compiled parts
            blocks[i] = torch.compile(block)
        fully_shard(blocks[i], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model.to(device)


@atexit.register
def _end_threads() -> None:
    """Let gloo's threads end before Python does.

    A group of our own is ended here. Its threads live as long as anything holds it, ended or not: a model that waits
    for the garbage collector, a mesh that torch remembers. One that lets go of a tensor while Python ends aborts the
    process ("terminate called without an active exception"). The group itself goes last: only so are its threads
    waited for without Python's lock, which they may need.
    """
    if _own and dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
    _own.clear()
    for mesh in _meshes:
        getattr(mesh, "_pg_registry", {}).clear()
    _meshes.clear()
    gc.collect()
    _groups.clear()


@contextmanager
def joined(config: TrainConfig) -> Iterator[tuple[World, TrainConfig]]:
    """Join the processes of a run; yield the world and the configuration with this process's device.

    A group that is made for a run stays until Python ends, so that the next run of the same script is joined, too: made
    a second time, over the same store, it waits for ever. A script that wants a group of its own makes it before.

    Raises
    ------
    InputError
        If a batch cannot be shared out evenly, or the optimizer cannot work on pieces of parameters.
    """
    world = World.of_environment(config.parallel)
    if world.size == 1:
        yield world, config
        return
    if config.batch % world.size:
        raise wrong("batch", f"a multiple of the {world.size} processes", config.batch, "change one of them")
    mine = config.batch // world.size
    if config.micro_batch is not None and mine % min(config.micro_batch, mine):
        raise wrong("micro_batch", f"a divisor of a process's share of the batch, {mine}", config.micro_batch)
    if world.sharded and config.optimizer.name not in ON_SHARDS:
        rule = f"one of {', '.join(sorted(ON_SHARDS))} with parallel: fsdp, as others need whole matrices"
        raise wrong("optimizer.name", rule, config.optimizer.name, "choose one of them or parallel: ddp")
    cuda = config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", world.local) if cuda else None
    if cuda:
        if world.local >= torch.cuda.device_count():
            rule = f"at most the number of CUDA devices here, {torch.cuda.device_count()}"
            raise wrong("the number of processes a machine", rule, world.local + 1, "lower --nproc-per-node")
        config = config.with_(device=f"cuda:{world.local}")
        torch.cuda.set_device(world.local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", device_id=place)
        _own.append(dist.group.WORLD)
    if dist.group.WORLD not in _groups:
        _groups.append(dist.group.WORLD)
    yield world, config
