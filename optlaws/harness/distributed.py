"""One run over several processes, one a GPU: data-parallel training under torchrun.

    torchrun --nproc-per-node 8 -m optlaws train run.yaml --out runs/large

Every process holds the whole model and computes the gradient of its share of each batch; the shares are averaged
(`DistributedDataParallel`), so the run is the one that a single process would train, up to rounding. Only the first
process writes; the folder must be one that all can read, for checkpoints are read by all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from optlaws.errors import InputError
from optlaws.harness._fields import wrong
from optlaws.harness.config import TrainConfig


@dataclass(frozen=True)
class World:
    """The processes of one run: the place of this one, how many there are, and its place on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> World:
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
        return cls(rank, size, local)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, batch: int) -> tuple[int, int]:
        """Return the first sequence of this process's share of a batch, and how many there are."""
        return self.rank * (batch // self.size), batch // self.size

    def wrap(self, model: Any) -> Any:
        """Return a model whose gradients are averaged over the processes."""
        return nn.parallel.DistributedDataParallel(model) if self.size > 1 else model

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes."""
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

    def wait(self) -> None:
        """Wait for the other processes."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(config: TrainConfig) -> Iterator[tuple[World, TrainConfig]]:
    """Join the processes of a run; yield the world and the configuration with this process's device.

    Raises
    ------
    InputError
        If a batch cannot be shared out evenly.
    """
    world = World.of_environment()
    if world.size == 1:
        yield world, config
        return
    if config.batch % world.size:
        raise wrong("batch", f"a multiple of the {world.size} processes", config.batch, "change one of them")
    mine = config.batch // world.size
    if config.micro_batch is not None and mine % min(config.micro_batch, mine):
        raise wrong("micro_batch", f"a divisor of a process's share of the batch, {mine}", config.micro_batch)
    cuda = config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available())
    if cuda:
        config = config.with_(device=f"cuda:{world.local}")
        torch.cuda.set_device(world.local)
    own = not dist.is_initialized()
    if own:
        dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield world, config
    finally:
        if own:
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()
