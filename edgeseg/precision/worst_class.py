"""The class that loses most to reduced precision, and how sure the pictures are of it.

The mean hides a single class: over eleven classes, a point of mean IoU may be eleven points of
one. A class that few pictures show, or few pixels of each, changes by points through chance
alone, so a loss counts only if it does not depend on which pictures were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeseg.artifacts.sidecar import WorstClass
from edgeseg.metrics import Bootstrap, Counts, Interval

FEWEST = 5
"""Pictures that must show a class before its loss counts.

Engines that are equally good lose on all of four pictures by chance in one case of sixteen,
which is no evidence at 95 %, whatever the bootstrap says of so few.
"""

_RESAMPLES = 4000


def worst_class(
    names: Sequence[str], reference: Counts, candidate: Counts, limit: float | None
) -> WorstClass | None:
    """Find the class that loses most in IoU between two engines on the same pictures.

    The interval of the loss is a paired bootstrap over the pictures that show the class (in the
    truth or a prediction), at 95 % for all classes together (Bonferroni), since the worst of many
    is picked. A class that exceeds the limit precedes the others.

    Args:
        reference: Pixel counts of FP32.
        candidate: Those of the engine of reduced precision.
        limit: Largest accepted loss of a class, a fraction of 1; None for any.

    A class that only one of them finds counts as found by the other with an IoU of 0.

    Returns:
        None if no class occurs.
    """
    before, after = (np.nan_to_num(counts.iou()[0]) for counts in (reference, candidate))
    shown = (reference.unions > 0) | (candidate.unions > 0)
    occurring = [int(place) for place in np.flatnonzero(shown.any(axis=0))]
    plan = Bootstrap(_RESAMPLES, confidence=1 - 0.05 / max(1, len(occurring)))

    def loss(place: int) -> WorstClass:
        here = shown[:, place]
        fp32, reduced = (
            Counts(c.hits[here, place, None], c.unions[here, place, None]) for c in pair
        )
        return WorstClass(
            name=names[place],
            reference=float(before[place]),
            value=float(after[place]),
            drop=float(before[place] - after[place]),
            limit=limit,
            interval=_interval_of_drop(fp32, reduced, plan),
            pictures=int(here.sum()),
        )

    pair = (reference, candidate)
    by_loss = sorted(occurring, key=lambda place: after[place] - before[place])
    too_much = [p for p in by_loss if limit is not None and before[p] - after[p] > limit]
    refused = next((one for one in map(loss, too_much) if exceeds(one)), None)
    return refused or (loss(by_loss[0]) if by_loss else None)


def exceeds(found: WorstClass) -> bool:
    """Whether the class lost more than its limit, and surely lost something.

    The loss itself exceeds the limit and its interval lies above zero; a class without an
    interval, which too few pictures show, does not count.
    """
    return (
        found.limit is not None
        and found.drop > found.limit
        and found.interval is not None
        and found.interval[0] > 0
    )


def _interval_of_drop(reference: Counts, candidate: Counts, plan: Bootstrap) -> Interval | None:
    if len(reference) < FEWEST:
        return None
    weights = plan.draw(len(reference))
    drops = np.nan_to_num(reference.iou(weights)) - np.nan_to_num(candidate.iou(weights))
    return plan.interval(drops[:, 0], len(reference))
