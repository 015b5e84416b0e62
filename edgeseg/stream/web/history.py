"""How a source did over the last minutes, second by second."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeseg.stream.latency import percentiles

KEPT_S = 180
"""Seconds that charts show."""

WINDOW_S = 10
"""Seconds over which percentiles are taken: one second of a camera has too few frames for them."""

_FPS_S = 5

PARTS = ("wait", "preprocess", "infer", "postprocess")
"""What a frame's age is made of: waiting for the engine, its stages, and what came after."""


@dataclass
class _Second:
    number: int
    ages: array[float] = field(default_factory=lambda: array("d"))
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))


class History:
    """Frames of one source; ``add`` and the rest may be called from two threads."""

    def __init__(self) -> None:
        self._seconds: deque[_Second] = deque(maxlen=KEPT_S + WINDOW_S)
        self._lock = threading.Lock()
        self._rows: dict[int, dict[str, float | None]] = {}
        self.last_at: float | None = None
        """Seconds since the view opened, of the newest frame."""

    def add(
        self, at: float, age_ms: float, labels_age_ms: float, took: Mapping[str, float]
    ) -> None:
        """Note a frame.

        Args:
            at: Seconds since the view opened.
            age_ms: From capture until now.
            labels_age_ms: From capture until its labels were there.
            took: Its ``preprocess`` and ``infer``, ms.
        """
        preprocess, infer = took.get("preprocess", 0.0), took.get("infer", 0.0)
        with self._lock:
            self.last_at = at
            if not self._seconds or self._seconds[-1].number != int(at):
                self._seconds.append(_Second(int(at)))
            second = self._seconds[-1]
            second.ages.append(age_ms)
            second.sums["wait"] += max(0.0, labels_age_ms - preprocess - infer)
            second.sums["preprocess"] += preprocess
            second.sums["infer"] += infer
            second.sums["postprocess"] += age_ms - labels_age_ms

    def fps(self, now: float) -> float:
        """Frames a second over the last whole seconds; 0 in the first."""
        last = int(now)
        since = max(0, last - _FPS_S)
        if last == since:
            return 0.0
        seconds = self._between(since, last)
        return sum(len(second.ages) for second in seconds) / (last - since)

    def age_ms(self, now: float) -> dict[str, float | None]:
        """p50, p95 and p99 of the last ten seconds; None where no frame came."""
        return _points(self._between(int(now) - WINDOW_S, int(now) + 1))

    def parts_ms(self, now: float) -> dict[str, float | None]:
        """Means of ``PARTS`` over the last ten seconds; None where no frame came."""
        return _means(self._between(int(now) - WINDOW_S, int(now) + 1))

    def columns(self, first: int, last: int) -> dict[str, list[float | None]]:
        """One value for each second of ``first`` … ``last - 1``.

        ``fps`` counts the frames of that second; ``p50``, ``p95``, ``p99`` are of the frame ages
        of the ten seconds that end with it, ms; ``PARTS`` are means of that second, ms. All but
        ``fps`` are None for a second without frames. Each second is worked out once, so ask for
        those that are over, and always in one thread.
        """
        for number in [number for number in self._rows if number < last - KEPT_S]:
            del self._rows[number]
        known: dict[int, _Second] | None = None
        for number in range(first, last):
            if number not in self._rows:
                if known is None:
                    known = {s.number: s for s in self._between(number - WINDOW_S, last)}
                self._rows[number] = _row(number, known)
        rows = [self._rows[number] for number in range(first, last)]
        return {name: [row[name] for row in rows] for name in ("fps", "p50", "p95", "p99", *PARTS)}

    def _between(self, first: int, last: int) -> list[_Second]:
        """Copies of the seconds ``first`` … ``last - 1`` that have frames."""
        with self._lock:
            return [
                _Second(second.number, second.ages[:], dict(second.sums))
                for second in self._seconds
                if first <= second.number < last
            ]


def _row(number: int, known: Mapping[int, _Second]) -> dict[str, float | None]:
    second = known.get(number)
    window = range(number - WINDOW_S + 1, number + 1) if second else ()
    return {
        "fps": float(len(second.ages)) if second else 0.0,
        **_points([known[n] for n in window if n in known]),
        **_means([second] if second else []),
    }


def _points(seconds: list[_Second]) -> dict[str, float | None]:
    ages = array("d")
    for second in seconds:
        ages.extend(second.ages)
    if not ages:
        return {"p50": None, "p95": None, "p99": None}
    return {name: round(value, 2) for name, value in percentiles(ages, (50, 95, 99)).items()}


def _means(seconds: list[_Second]) -> dict[str, float | None]:
    frames = sum(len(second.ages) for second in seconds)
    if not frames:
        return dict.fromkeys(PARTS)
    return {part: round(sum(second.sums[part] for second in seconds) / frames, 2) for part in PARTS}
