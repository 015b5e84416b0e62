"""One training in several processes, started by ``torchrun``; one alone is the common case.

::

    torchrun --nproc-per-node 2 -m -- edgeseg train --data data --run runs/mine

Without the two dashes torchrun takes ``--run`` for an option of its own.

Each process takes its part of every batch. The loss is worked out of sums over all of them, so
that the result is that of one process with the whole batch, save for what looks at a part by
its nature: BatchNorm's statistics, dropout and augmentation.
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

from edgeseg.errors import UsageError

TIMEOUT = timedelta(minutes=30)
"""How long processes wait for the first, which alone validates; torchrun ends them all at once
when one dies."""


def rank() -> int:
    """Number of this process, 0 for the one that writes and speaks; known before :func:`joined`."""
    return int(os.environ.get("RANK", "0")) if _launched() else 0


@dataclass(frozen=True)
class Processes:
    """All processes of a training, seen from one of them.

    Attributes:
        rank: Number of this one.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that validates, writes and speaks."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raise UsageError where a batch has no picture for some process."""
        if batch_size < self.count:
            raise UsageError(
                f"a batch of {batch_size} cannot be divided among {self.count} processes",
                mend=f"--batch-size {self.count} or more; it counts over all processes",
            )

    def check_epochs(self, done: int) -> None:
        """Raise UsageError where this process would go on after another epoch than the first.

        On several machines without a shared disk the first alone finds what is to be resumed.
        """
        (first,) = self.share([done])
        if done != first:
            raise UsageError(
                f"process {self.rank} of {self.count} finds {done} epochs of this training, the "
                f"first process {first:.0f}",
                mend="put --run on a disk that all machines share, or copy the run folder to all",
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network with gradients that are means over all processes."""
        if self.count == 1:
            return model
        return nn.parallel.DistributedDataParallel(model)

    def total(self, part: Tensor) -> Tensor:
        """Sum over all processes, with the gradient of this one's ``part``."""
        if self.count == 1:
            return part
        whole = part.detach().clone()
        dist.all_reduce(whole)
        return part + (whole - part.detach())

    def share(self, values: Sequence[float]) -> list[float]:
        """What the first process has, on all of them; the others say how many values."""
        if self.count == 1:
            return list(values)
        # On the GPU where there is one: NCCL knows no other place.
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        shared = torch.tensor(values, dtype=torch.float64, device=device)
        dist.broadcast(shared, src=0)
        return [float(value) for value in shared]


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun started, connected while the block runs; else this one alone.

    NCCL where there are GPUs, one for each process of a machine; gloo elsewhere. Processes
    other than the first log errors only.
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
