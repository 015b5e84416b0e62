"""What the view tells of the stream: ``/status`` and ``/history``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.artifacts.card import ClassMap
from edgeseg.engines.base import Engine
from edgeseg.machine import peak_rss_mib
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import SinkContext, SourceStatus
from edgeseg.stream.web.history import KEPT_S, PARTS, History

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
            now - self._began,
            (now - result.captured_at) * 1000,
            result.age_ms,
            result.stages_ms,
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
                {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*colour)}
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
