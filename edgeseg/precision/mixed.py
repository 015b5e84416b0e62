"""Search for the fewest layers in higher precision that pass the gate.

Layers are ordered by what each changes alone, and the gate decides how many of them must be kept.
Then each kept layer is reduced again if the gate still passes. Errors of layers do not add up,
so the order is only a guide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgeseg.artifacts.sidecar import GateResult


@dataclass(frozen=True)
class Trial:
    """One choice of kept layers, and the gate's result.

    ``macs_share`` is the share of multiply-accumulates in reduced precision, a fraction of 1.
    """

    kept: tuple[str, ...]
    macs_share: float
    gate: GateResult


@dataclass(frozen=True)
class Search:
    """All trials in order, and the chosen one, or None if none passes."""

    trials: tuple[Trial, ...]
    chosen: Trial | None


def fewest_kept(order: Sequence[str], attempt: Callable[[tuple[str, ...]], Trial]) -> Search:
    """Find a small set of layers to keep.

    Deterministic: about 2·log2(n) trials for the number, and one more for each layer kept.

    Args:
        order: The layers of reduced precision, the most harmful first. At least one of them
            stays reduced.
        attempt: Function that builds the network with the given layers kept, and judges it.
    """
    trials: list[Trial] = []

    def trial(kept: tuple[str, ...]) -> Trial:
        made = next((t for t in trials if t.kept == kept), None)
        if made is None:
            made = attempt(kept)
            trials.append(made)
        return made

    best = _shortest_prefix(tuple(order), trial)
    if best is None:
        return Search(tuple(trials), None)
    # Start with the least harmful layer: it is the likeliest to be kept needlessly.
    for name in reversed(best.kept):
        without = trial(tuple(other for other in best.kept if other != name))
        if without.gate.passed:
            best = without
    return Search(tuple(trials), best)


def _shortest_prefix(
    order: tuple[str, ...], trial: Callable[[tuple[str, ...]], Trial]
) -> Trial | None:
    """Keep 0, 1, 2, 4, … layers until the gate passes, then bisect between the last two."""
    most = len(order) - 1
    failed, count = -1, 0
    while not trial(order[:count]).gate.passed:
        if count >= most:
            return None
        failed, count = count, min(max(1, 2 * count), most)
    while count - failed > 1:
        middle = (count + failed) // 2
        if trial(order[:middle]).gate.passed:
            count = middle
        else:
            failed = middle
    return trial(order[:count])
