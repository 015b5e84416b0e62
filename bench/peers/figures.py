"""Compute figures from measured blocks: filtering, medians, and ratios within a round."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeseg.errors import InferenceError
from edgeseg.stream.latency import percentiles

OTHERS = 0.12
"""Cores that others may use in a block that is kept."""


@dataclass(frozen=True)
class Block:
    """What one peer did in one round.

    Attributes:
        other_cores: Mean number of cores that others kept busy meanwhile.
        fps: Frames a second.
        infer_ms: Of each frame; of a program with a loop of its own, what it states.
        outside_ms: Of each frame, besides inference: from decoded frame to overlay.
        work_ms: The sum of both.
        loop_ms: From decoded frame to overlay, waiting in the loop's own queues included.
        cpu_ms: CPU time a frame of the whole process, decoding included.
        peak_mib: Most memory of the process so far.
    """

    other_cores: float
    fps: float
    infer_ms: Sequence[float]
    outside_ms: Sequence[float] = ()
    work_ms: Sequence[float] = ()
    loop_ms: Sequence[float] = ()
    cpu_ms: float | None = None
    peak_mib: float = 0.0


@dataclass
class Samples:
    """The blocks of one peer by their round."""

    blocks: dict[int, Block] = field(default_factory=dict)

    @property
    def quiet(self) -> dict[int, Block]:
        """The blocks that others left alone; all of them where those are fewer than half.

        Keeping a minority would choose the lucky moments of a busy machine.
        """
        kept = {n: block for n, block in self.blocks.items() if block.other_cores <= OTHERS}
        return kept if 2 * len(kept) >= len(self.blocks) else self.blocks

    @property
    def noisy(self) -> bool:
        """Whether blocks had to be kept in which others were busy."""
        return any(block.other_cores > OTHERS for block in self.quiet.values())

    def median(self, what: str) -> float | None:
        """Of the blocks' values, for values of a frame of the blocks' medians; None without."""
        values = [_of(block, what) for block in self.quiet.values()]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def percentiles(self, what: str) -> dict[str, float] | None:
        """p50 and p99 over the frames of all blocks kept; None where there are none."""
        frames = [value for block in self.quiet.values() for value in getattr(block, what)]
        return percentiles(frames, (50, 99)) if frames else None

    @property
    def spread(self) -> float:
        """Distance of the quartiles of the frames a second, as a fraction of their median."""
        rates = [block.fps for block in self.quiet.values()]
        low, middle, high = np.percentile(rates, (25, 50, 75))
        return float((high - low) / middle)


@dataclass(frozen=True)
class Ratio:
    """Median of the quotients within a round, and their quartiles."""

    median: float
    low: float
    high: float
    rounds: int


def ratio(mine: Samples, theirs: Samples, what: str) -> Ratio | None:
    """``mine / theirs`` in each round of which both blocks are kept; None where there is none.

    Within a round, since the machine's speed drifts from one to the next.
    """
    quotients = []
    for number in mine.quiet.keys() & theirs.quiet.keys():
        a, b = _of(mine.blocks[number], what), _of(theirs.blocks[number], what)
        if a is not None and b:
            quotients.append(a / b)
    if not quotients:
        return None
    low, middle, high = np.percentile(quotients, (25, 50, 75))
    return Ratio(float(middle), float(low), float(high), len(quotients))


@dataclass(frozen=True)
class Ages:
    """How old frames of a camera were when they were shown, ms; of the last ten, ``late_ms``."""

    p50: float
    p99: float
    late_ms: float
    shown: int
    sent: int


def ages(answer: Mapping[str, Sequence[float]], fps: float, settle: float = 0.5) -> Ages:
    """Ages of numbered frames of a camera that plays at an even pace.

    The camera's clock is not known to us, so ages count from the earliest that any frame of the
    run was read, relative to its number.

    Args:
        answer: As :func:`worker.live` gives it: ``numbers``, and seconds ``read`` and ``shown``.
        fps: Of the camera.
        settle: Seconds at the start that are left out.

    Raises:
        InferenceError: No frame was shown after that.
    """
    numbers = np.array(answer["numbers"], np.float64)
    shown = np.array(answer["shown"], np.float64)
    settled = shown >= shown[0] + settle if shown.size else np.zeros(0, np.bool_)
    if not settled.any():
        raise InferenceError(
            f"{shown.size} frames of the camera were shown, none after {settle:g} s",
            hint="give the loops more time with --live-seconds",
        )
    departure = float(np.min(np.array(answer["read"], np.float64) - numbers / fps))
    late = (shown - departure - numbers / fps) * 1000
    points = percentiles(late[settled], (50, 99))
    sent = int(numbers.max() - numbers.min()) + 1
    end = float(np.median(late[-10:]))
    return Ages(points["p50"], points["p99"], end, late.size, sent)


def _of(block: Block, what: str) -> float | None:
    value = getattr(block, what)
    if value is None or isinstance(value, (int, float)):
        return value
    return float(statistics.median(value)) if len(value) else None
