"""The accuracy gate: an engine of reduced precision is held against FP32 before it is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, load_image
from edgeseg.engines.base import Engine
from edgeseg.errors import AccuracyGateError, UsageError
from edgeseg.evaluation import agreement, evaluate
from edgeseg.sidecar import GateResult


@dataclass(frozen=True)
class Limits:
    """How much an engine of reduced precision may differ from FP32, fractions of 1."""

    max_drop: float = 0.01
    min_agreement: float = 0.98

    def __post_init__(self) -> None:
        for name in ("max_drop", "min_agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is a fraction of 1, not {getattr(self, name)}")


def judge(
    reference: Engine,
    candidate: Engine,
    pictures: Split | Sequence[Path],
    *,
    limits: Limits = Limits(),
    judged_on: str | None = None,
    track: Track = silent,
) -> GateResult:
    """Compare two engines of one network.

    On a labelled split the measure is mean IoU, and ``drop`` what it loses; on pictures
    without labels it is the share of pixels with the same label.

    Args:
        reference: The FP32 engine.
        candidate: The engine of reduced precision.
        pictures: A labelled split, or paths of pictures.
        limits: What may be lost.
        judged_on: The runtime to name in the result; that of ``candidate`` by default.

    Raises:
        UsageError: ``pictures`` is empty.
        DatasetError: A picture or mask cannot be read.
        InferenceError: An engine failed.
    """
    if not len(pictures):
        raise UsageError("the accuracy gate needs at least one picture")
    if isinstance(pictures, Split):
        before = evaluate(reference, pictures, track).mean_iou
        after = evaluate(candidate, pictures, track).mean_iou
        limit = limits.max_drop
    else:
        images = map(load_image, track(pictures, "comparing with FP32", len(pictures)))
        before, after = 1.0, agreement(reference, candidate, images)
        limit = 1 - limits.min_agreement
    drop = before - after
    return GateResult(
        metric="mean_iou" if isinstance(pictures, Split) else "pixel_agreement",
        reference=before,
        value=after,
        drop=drop,
        limit=limit,
        # A mean IoU that is not a number passes no gate.
        passed=bool(drop <= limit),
        images=len(pictures),
        judged_on=judged_on or candidate.runtime,
    )


def enforce(result: GateResult, engine: Path) -> None:
    """Raise where ``result`` is over its limit.

    Raises:
        AccuracyGateError: With the figures, and how to go on.
    """
    if result.passed:
        return
    what, option = (
        ("mean IoU", "--max-drop")
        if result.metric == "mean_iou"
        else ("equal pixels", "--min-agreement")
    )
    raise AccuracyGateError(
        f"{engine.name} was not written: {what} {result.value:.4f} against "
        f"{result.reference:.4f} in FP32, a loss of {result.drop:.4f} where {result.limit:.4f} "
        f"is allowed, on {result.images} pictures in {result.judged_on}",
        mend="keep sensitive layers in floating point (`--keep 'PATTERN'`), calibrate on more "
        "pictures or with `--method percentile`, build with --fp16, or accept the loss "
        f"(`{option} {_enough(result)}`)",
    )


def _enough(result: GateResult) -> str:
    """The limit that would have passed, in per cent, as the command line counts."""
    if not math.isfinite(result.drop):
        return "…"
    if result.metric == "mean_iou":
        return f"{math.ceil(result.drop * 1000) / 10}"
    return f"{math.floor(result.value * 1000) / 10}"
