"""What the view tells of the stream, and its last minutes second by second."""

from __future__ import annotations

import secrets
import threading
import time
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgeseg.artifacts.card import ClassMap, css_colour
from edgeseg.engines.base import Engine
from edgeseg.machine import peak_rss_mib
from edgeseg.stream.latency import percentiles
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import SinkContext, SourceStatus

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


SCHEMA_VERSION = 1


@dataclass(frozen=True)
class About:
    """Which engine labels the frames: name of the file, its runtime, its precision."""

    name: str
    runtime: str
    precision: str

    @classmethod
    def of(cls, engine: Engine) -> About:
        """An engine that is open."""
        return cls(engine.path.name, engine.runtime, engine.card.precision)


class Status:
    """Sources, their histories and outputs, as the page shows them."""

    def __init__(
        self,
        sources: Sequence[SourceStatus],
        classes: ClassMap,
        about: About | None,
        context: SinkContext | None = None,
    ) -> None:
        self._context = context or SinkContext()
        self._sources = sources
        self._histories = {source.index: History() for source in sources}
        self._classes = classes
        self._about = about
        self._began = time.monotonic()
        self._run = secrets.token_hex(8)

    def add(self, result: StreamResult) -> None:
        """Note a result, in the stream's thread."""
        now = time.monotonic()
        self._histories[result.camera].add(
            now - self._began, (now - result.captured_at) * 1000, result.age_ms, result.stages_ms
        )

    @property
    def cameras(self) -> frozenset[int]:
        """Numbers of the sources."""
        return frozenset(self._histories)

    @property
    def delivering(self) -> bool:
        """Whether frames come from a source at least."""
        return any(source.state == "ok" for source in self._sources)

    @property
    def failed(self) -> list[str]:
        """Kinds of the outputs that have failed, without the names of their files."""
        return sorted({it.kind for it in self._context.reports() if it.state == "failed"})

    def describe(self) -> dict[str, Any]:
        """What ``/status`` answers.

        ``schema_version``, ``run`` (another for each run), ``engine`` {``name``, ``runtime``,
        ``precision``} or null, ``classes`` [{``name``, ``color`` ``#rrggbb``}],
        ``background`` (id of the class that is clear at first, or null), ``seconds`` since the
        view opened, ``frames``, ``dropped``, ``bad_frames``, ``reconnects`` (of all sources),
        ``fps`` (of the last five seconds), ``peak_rss_mib``, ``sources``
        [:meth:`_describe_source`], ``sinks`` [:class:`~edgeseg.stream.sinks.health.SinkReport`].
        """
        now = time.monotonic() - self._began
        sources = [self._describe_source(source, now) for source in self._sources]
        counted = ("frames", "dropped", "bad_frames", "reconnects")
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self._run,
            "engine": None if self._about is None else asdict(self._about),
            "classes": [
                {"name": name, "color": css_colour(colour)}
                for name, colour in zip(self._classes.names, self._classes.palette, strict=True)
            ],
            "background": self._classes.background,
            "seconds": round(now, 1),
            **{key: sum(source[key] for source in sources) for key in counted},
            "fps": round(sum(source["fps"] for source in sources), 2),
            "peak_rss_mib": round(peak_rss_mib(), 1),
            "sources": sources,
            "sinks": [asdict(report) for report in self._context.reports()],
        }

    def _describe_source(self, source: SourceStatus, now: float) -> dict[str, Any]:
        """``index``, ``label`` (passwords masked), ``state``, ``realtime``, the counts, ``fps``.

        ``silent_s``: since the newest frame, null before the first; ``frame_age_ms`` {p50, p95,
        p99} and ``parts_ms`` (means of what the age is made of), both of the last ten seconds,
        null where no frame came.
        """
        history = self._histories[source.index]
        last_at = history.last_at
        return {
            "index": source.index,
            "label": source.label,
            "state": source.state,
            "realtime": source.realtime,
            "frames": source.taken,
            "dropped": source.dropped,
            "bad_frames": source.bad_frames,
            "reconnects": source.reconnects,
            "fps": round(history.fps(now), 2),
            "silent_s": None if last_at is None else round(max(0.0, now - last_at), 2),
            "frame_age_ms": history.age_ms(now),
            "parts_ms": history.parts_ms(now),
        }

    def chronicle(self, after: int) -> dict[str, Any]:
        """What ``/history`` answers: whole seconds past ``after``, -1 for all that are kept.

        ``first`` and ``last``: the seconds are ``first`` … ``last - 1`` since the view opened;
        ``parts``: names in the order in which a frame passes them; ``sources``: a
        :meth:`History.columns` each.
        """
        last = int(time.monotonic() - self._began)
        first = min(last, max(after + 1, last - KEPT_S, 0))
        return {
            "first": first,
            "last": last,
            "parts": list(PARTS),
            "sources": [
                self._histories[source.index].columns(first, last) for source in self._sources
            ],
        }
