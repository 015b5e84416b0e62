"""The accuracy gate: compare an engine of reduced precision with FP32 before keeping it."""

from __future__ import annotations

import glob
import logging
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.documents import plural
from edgeseg.artifacts.sidecar import GateResult
from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, load_image
from edgeseg.engines.base import Engine
from edgeseg.errors import AccuracyGateError, UsageError
from edgeseg.evaluation import Evaluation, agreement, evaluate
from edgeseg.options.building import GateLimits
from edgeseg.precision.sensitivity import LayerCost
from edgeseg.precision.worst_class import exceeds, worst_class

logger = logging.getLogger(__name__)


def judge(
    reference: Engine,
    candidate: Engine,
    pictures: Split | Sequence[Path],
    *,
    limits: GateLimits = GateLimits(),
    judged_on: str | None = None,
    before: Evaluation | None = None,
    track: Track = silent,
) -> GateResult:
    """Compare two engines of the same network.

    The metric is mean IoU on a labelled split, and ``drop`` is the loss of it; the class that
    loses most is judged too (:mod:`edgeseg.precision.worst_class`). On unlabelled pictures the
    metric is the share of pixels to which both give the same label.

    Args:
        reference: The FP32 engine.
        pictures: A labelled split, or paths of pictures.
        judged_on: Runtime to name in the result; by default that of ``candidate``.
        before: Evaluation of ``reference`` on this split if already known.

    Raises:
        UsageError: ``pictures`` is empty.
        DatasetError: A picture or mask cannot be read.
        InferenceError: An engine failed.
    """
    if not len(pictures):
        raise UsageError("the accuracy gate needs at least one picture")
    judged_on = judged_on or candidate.runtime
    if isinstance(pictures, Split):
        before = before or evaluate(reference, pictures, track)
        return _result(before, evaluate(candidate, pictures, track), limits, judged_on)
    images = map(load_image, track(pictures, "comparing with FP32", len(pictures)))
    same, limit = agreement(reference, candidate, images), 1 - limits.min_agreement
    return GateResult(
        metric="pixel_agreement",
        reference=1.0,
        value=same,
        drop=1 - same,
        limit=limit,
        passed=bool(1 - same <= limit),
        images=len(pictures),
        judged_on=judged_on,
    )


def _result(
    before: Evaluation, after: Evaluation, limits: GateLimits, judged_on: str
) -> GateResult:
    assert before.counts is not None  # Both were evaluated on a split.
    assert after.counts is not None
    names = [name for name, _ in before.per_class]
    worst = worst_class(names, before.counts, after.counts, limits.max_class_drop)
    drop = before.mean_iou - after.mean_iou
    if worst and worst.limit is not None and worst.drop > worst.limit and not exceeds(worst):
        logger.warning("%s; that may be chance: give more pictures of it", worst.describe())
    return GateResult(
        metric="mean_iou",
        reference=before.mean_iou,
        value=after.mean_iou,
        drop=drop,
        limit=limits.max_drop,
        # NaN never passes.
        passed=bool(drop <= limits.max_drop) and not (worst and exceeds(worst)),
        images=after.images,
        judged_on=judged_on,
        worst_class=worst,
    )


@dataclass(frozen=True)
class Advice:
    """Advice to show when the gate rejects a candidate.

    Attributes:
        layers: Cost of each layer alone, the most harmful first.
        command: Command line that repeats the build without any ``--keep``, ready to paste; empty
            if ``--auto-mixed`` was tried already.
        unmeasured: Number of layers that were not measured alone.
    """

    layers: tuple[LayerCost, ...] = ()
    command: str = ""
    precision: Precision = "int8"
    unmeasured: int = 0


SHOWN = 8
"""Number of layers listed in the message of a rejected build, or more if more are to be kept."""

_ALONE = "layer, it alone reduced"


def enforce(result: GateResult, engine: Path, advice: Advice = Advice()) -> None:
    """Raise an error if ``result`` exceeds its limit.

    Raises:
        AccuracyGateError: The limit is exceeded. The message has the figures, the most harmful
            layers and how to proceed.
    """
    if result.passed:
        return
    proposed = enough_kept(result, advice.layers) if advice.command else []
    worst = advice.layers[: max(SHOWN, len(proposed))]
    raise AccuracyGateError(
        f"{engine.name} was not written: {_loss(result)} in {result.judged_on}"
        + (f"\n{_table(result, worst, advice.unmeasured)}" if worst else ""),
        hint=_mend(result, advice, proposed),
        layers=[layer.to_dict() for layer in worst],
    )


def _loss(result: GateResult) -> str:
    """What exceeds its limit: the metric, or the worst class alone."""
    if result.drop <= result.limit and result.worst_class is not None:
        return result.worst_class.describe()
    what = "mean IoU" if result.metric == "mean_iou" else "equal pixels"
    return (
        f"{what} {result.value:.4f} against {result.reference:.4f} in FP32, a loss of "
        f"{result.drop:.4f} where {result.limit:.4f} is allowed, "
        f"on {plural(result.images, 'picture')}"
    )


def enough_kept(result: GateResult, layers: Sequence[LayerCost]) -> list[str]:
    """The fewest of the most harmful layers whose keeping should make the gate pass.

    At least one, and where there are two or more, one is left to reduce. The errors of layers are
    nearly independent, so their powers add up (Lin, Talathi and Annapureddy, "Fixed point
    quantization of deep convolutional networks", ICML 2016); the loss is taken to be proportional
    to the square root of their sum.
    """
    share = result.limit / result.drop if result.drop > result.limit else 1.0
    worst = result.worst_class
    if worst is not None and worst.limit is not None and exceeds(worst):
        share = min(share, worst.limit / worst.drop)
    powers = [layer.change**2 for layer in layers]
    allowed = share**2 * sum(powers)
    counts = range(1, len(layers))
    enough = (count for count in counts if sum(powers[count:]) <= allowed)
    return [layer.layer for layer in layers[: next(enough, max(1, len(layers) - 1))]]


def _table(result: GateResult, layers: Sequence[LayerCost], unmeasured: int) -> str:
    """Format the most harmful layers as aligned lines."""
    lost = result.metric == "mean_iou"  # Without labels the loss is the change.
    head = "labels changed" + ("  mean IoU lost" if lost else "")
    width = max(len(layer.layer) for layer in layers)
    width = max(width, len(_ALONE))
    lines = [f"  {_ALONE:{width}}  {head}  {'score error':>11}  MACs"]
    for layer in layers:
        error = "–" if layer.score_error is None else f"{100 * layer.score_error:.1f} %"
        lines.append(
            f"  {layer.layer:{width}}  {100 * layer.change:>12.2f} %"
            + (f"  {100 * layer.loss:>11.2f} %" if lost else "")
            + f"  {error:>11}  {100 * layer.macs_share:.1f} %"
        )
    if unmeasured:
        lines.append(
            f"  ({plural(unmeasured, 'other')}, less harmful in groups, not reduced alone)"
        )
    return "\n".join(lines)


def _mend(result: GateResult, advice: Advice, proposed: Sequence[str]) -> str:
    accept = f"accept the loss (`{_accepting(result)}`)"
    if proposed:
        keep = " ".join(f"--keep {shlex.quote(glob.escape(name))}" for name in proposed)
        first = (
            f"`{advice.command} {keep}` keeps the most harmful; "
            f"`{advice.command} --auto-mixed` finds the fewest that pass; or "
        )
    else:
        first = "keep sensitive layers in floating point (`--keep 'PATTERN'`), "
    if advice.precision == "fp16":
        return first + accept
    return (
        f"{first}calibrate on more pictures or with `--method percentile`, build with --fp16, "
        f"or {accept}"
    )


def _accepting(result: GateResult) -> str:
    """Options with which the result would have passed, in points or per cent."""
    if result.metric == "pixel_agreement":
        return f"--min-agreement {math.floor(result.value * 1000) / 10}"
    options = []
    if not result.drop <= result.limit:
        options.append(f"--max-drop {_rounded_up(result.drop)}")
    if result.worst_class and exceeds(result.worst_class):
        options.append(f"--max-class-drop {_rounded_up(result.worst_class.drop)}")
    return " ".join(options)


def _rounded_up(drop: float) -> str:
    return f"{math.ceil(drop * 1000) / 10}" if math.isfinite(drop) else "…"
