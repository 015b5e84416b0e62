"""Data-parallel training in several processes, started by ``torchrun``.

::

    torchrun --nproc-per-node 2 -m -- edgeseg train --data data --run runs/mine

Without the two dashes torchrun parses ``--run`` as an option of its own.

Each process takes its share of every batch. The loss is computed from sums over all processes, so
the result equals that of one process with the whole batch, except for BatchNorm's statistics,
dropout and augmentation, which each process computes on its own share.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

from edgeseg.artifacts.documents import plural
from edgeseg.errors import UsageError

TIMEOUT = timedelta(minutes=30)
"""How long the other processes wait for rank 0, which validates alone. If one process dies,
torchrun ends all of them at once."""


def rank() -> int:
    """Rank of this process; 0 writes files and logs. Available before :func:`joined`."""
    return int(os.environ.get("RANK", "0")) if _launched() else 0


@dataclass(frozen=True)
class Processes:
    """The process group of a training, as seen by one process.

    Attributes:
        rank: Rank of this process, from 0.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes files and logs."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raise UsageError if a batch is too small to give every process a picture."""
        if batch_size < self.count:
            raise UsageError(
                f"a batch of {batch_size} cannot be divided among {self.count} processes",
                hint=f"--batch-size {self.count} or more; it counts over all processes",
            )

    def check_epochs(self, done: int) -> None:
        """Raise UsageError if this process would resume from another epoch than rank 0.

        On several machines without a shared disk only rank 0 finds the state to resume.
        """
        (first,) = self.share([done])
        if done != first:
            raise UsageError(
                f"process {self.rank} of {self.count} finds {plural(done, 'epoch')} of this "
                f"training, the first process {first:.0f}",
                hint="put --run on a disk that all machines share, or copy the run folder to all",
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap the network so that gradients are averaged over all processes."""
        if self.count == 1:
            return model
        return nn.parallel.DistributedDataParallel(model)

    def total(self, part: Tensor) -> Tensor:
        """Sum ``part`` over all processes; gradients flow to this process's ``part`` only."""
        if self.count == 1:
            return part
        whole = part.detach().clone()
        dist.all_reduce(whole)
        return part + (whole - part.detach())

    def share(self, values: Sequence[float]) -> list[float]:
        """Broadcast the values of rank 0; the other ranks pass a list of the same length."""
        if self.count == 1:
            return list(values)
        # NCCL handles GPU tensors only.
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        shared = torch.tensor(values, dtype=torch.float64, device=device)
        dist.broadcast(shared, src=0)
        return [float(value) for value in shared]


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the process group that torchrun started, for the duration of the block.

    Without torchrun the group is this process alone. Uses NCCL with one GPU per process, or gloo
    on CPUs. Ranks other than 0 log errors only.
    """
    if not _launched():
        yield Processes()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    processes = Processes(dist.get_rank(), dist.get_world_size())
    if not processes.first:
        logging.getLogger("edgeseg").setLevel(logging.ERROR)
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def _launched() -> bool:
    return dist.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1
