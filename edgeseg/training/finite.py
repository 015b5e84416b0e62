"""Detect NaN and infinity before they reach a weight or a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from edgeseg.errors import NonFiniteOutput


def non_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the floating-point tensors that hold NaN or infinity."""
    return [
        name
        for name, value in tensors
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]


def listed(names: list[str]) -> str:
    """Format the first three names and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def refuse_non_finite(path: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise NonFiniteOutput if a tensor to be saved holds NaN or infinity."""
    if names := non_finite(tensors):
        raise NonFiniteOutput(
            f"{path}: not written, since NaN or infinity is in {listed(names)}",
            hint="train again with a lower --learning-rate; the best checkpoint so far was kept",
        )
