"""What a stream does, as metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from edgeseg import __version__
from edgeseg.errors import needed
from edgeseg.stream.result import State, StreamResult
from edgeseg.stream.sinks.base import Sink, SinkContext, SourceStatus
from edgeseg.stream.web.address import Address, listen
from edgeseg.stream.web.guard import Guard, Rules

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

    from edgeseg.stream.web.server import ServerThread

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)

_BY_SOURCE = ("camera", "source")

_CONNECTIONS = 32
_IDLE_S = 10.0
_UNREAD_S = 20.0


class Metrics(Sink):
    """Serves ``http://HOST:PORT/metrics`` in the text format of Prometheus.

    ================================== ========= ==========================================
    ``edgeseg_frames_total``           counter   frames segmented, by source
    ``edgeseg_dropped_frames_total``   counter   frames that gave way to newer ones
    ``edgeseg_bad_frames_total``       counter   frames that could not be read
    ``edgeseg_reconnects_total``       counter   losses after which frames came again
    ``edgeseg_source_state``           gauge     1 for the state of a source, 0 for others
    ``edgeseg_frame_age_seconds``      histogram capture to result, by source
    ``edgeseg_stage_seconds``          histogram ``capture``, ``preprocess``, ``infer`` …
    ``edgeseg_flicker_share``          summary   pixels that flickered, see
                                                 :class:`~edgeseg.stream.smoothing.Flicker`:
                                                 ``_sum`` over ``_count`` is their mean share
    ``edgeseg_class_share``            gauge     of the last frame, by source and class;
                                                 not there while the source is not ``ok``
    ``edgeseg_sink_up``                gauge     1 while an output works, 0 while it has failed
    ``edgeseg_sink_written_total``     counter   results that an output took
    ``edgeseg_sink_lost_total``        counter   results that it could not take
    ``edgeseg_sink_errors_total``      counter   how often it failed
    ``edgeseg_engine_info``            gauge     1, with the engine's name and runtime
    ``edgeseg_build_info``             gauge     1, with the ``version`` of edgeseg
    ================================== ========= ==========================================

    A source is identified by ``camera``, its number in the stream from 0, and ``source``, its label
    with passwords masked: two sources may have one label. An output is identified by ``sink``, its
    name in logs. The figures of the process are added: memory, descriptors, CPU time.

    Args:
        host: Where to listen; other than loopback it is open to whoever reaches it.
        port: 0 takes one that is free.
        engine: Description of the engine: ``name``, ``runtime``, ``precision``.
        classes: Names of the classes; their shares are given where there are any.
        hosts: Names by which clients may call it, besides those of this machine.
    """

    retry = "later"

    def __init__(
        self,
        host: str,
        port: int,
        engine: dict[str, str] | None = None,
        classes: Sequence[str] = (),
        hosts: Sequence[str] = (),
    ) -> None:
        self.host, self.port = host, port
        self._hosts = hosts
        self._engine = engine or {}
        self._classes = classes
        self._shares: dict[int, dict[str, float]] = {}
        self._server: ServerThread | None = None

    def __str__(self) -> str:
        return f"the metrics at {self.host}:{self.port}"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Listen.

        Raises:
            RuntimeMissing: The packages of ``edgeseg[metrics]`` are not installed.
            OutputError: The port is taken, or the address is not there yet.
            UsageError: The port is not ours to take.
        """
        with needed("metrics need", "metrics"):
            import prometheus_client as prometheus
            import starlette  # noqa: F401 - looked for, used later

            from edgeseg.stream.web.server import ServerThread
        registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        registry.register(_Figures(sources, self._shares, self.context))
        ages = ("edgeseg_frame_age_seconds", "From capture to the result.", _BY_SOURCE)
        self._age: Any = prometheus.Histogram(*ages, buckets=_SECONDS, registry=registry)
        stages = ("edgeseg_stage_seconds", "Time of one stage of a frame.", ["stage"])
        self._stage: Any = prometheus.Histogram(*stages, buckets=_SECONDS, registry=registry)
        flicker = ("edgeseg_flicker_share", "Share of pixels that flickered.", _BY_SOURCE)
        self._flicker: Any = prometheus.Summary(*flicker, registry=registry)
        prometheus.Info("edgeseg_engine", "The engine.", registry=registry).info(self._engine)
        build = prometheus.Info("edgeseg_build", "What runs.", registry=registry)
        build.info({"version": __version__})
        listening = listen(Address(self.host, self.port), _UNREAD_S, "--metrics")
        self.port = listening.getsockname()[1]
        app = _app(registry, Rules.of(Address(self.host, self.port), self._hosts))
        self._server = ServerThread(
            "metrics", app, listening, connections=_CONNECTIONS, idle_s=_IDLE_S
        )
        self._server.start()

    def write(self, result: StreamResult) -> None:
        """Count a result.

        Raises:
            RuntimeError: The server has ended by itself.
        """
        self.idle()
        self._age.labels(str(result.camera), result.source).observe(result.age_ms / 1000)
        for stage, milliseconds in result.stages_ms.items():
            self._stage.labels(stage).observe(milliseconds / 1000)
        if result.flicker is not None:
            self._flicker.labels(str(result.camera), result.source).observe(result.flicker)
        if self._classes:
            pixels = result.frame.shape[0] * result.frame.shape[1]
            areas = zip(self._classes, result.areas().tolist(), strict=True)
            # Replaced whole, never changed: scrapes read it in other threads.
            self._shares[result.camera] = {name: area / pixels for name, area in areas}

    def idle(self) -> None:
        """Raises RuntimeError where the server has ended by itself."""
        assert self._server is not None
        self._server.check()

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None


def _app(registry: CollectorRegistry, rules: Rules) -> ASGIApp:
    """``/metrics`` in the format that the client asks for; a connection is for one answer."""
    from prometheus_client.exposition import choose_encoder
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    async def answer(request: Request) -> Response:
        try:
            encode, kind = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # a version that is not a number
            encode, kind = choose_encoder("")
        return Response(encode(registry), headers={"Content-Type": kind, "Connection": "close"})

    return Guard(Starlette(routes=[Route("/metrics", answer)]), rules)


class _Figures:
    """What sources and outputs count themselves, read when it is asked for."""

    def __init__(
        self,
        sources: Sequence[SourceStatus],
        shares: Mapping[int, Mapping[str, float]],
        context: SinkContext,
    ) -> None:
        self._sources, self._shares, self._context = sources, shares, context

    def collect(self) -> Iterator[Metric]:
        """Yield a family for each figure."""
        yield from self._of_sources()
        yield from self._of_outputs()

    def _of_sources(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counters: Iterable[tuple[str, str, str]] = (
            ("edgeseg_frames", "Frames segmented.", "taken"),
            ("edgeseg_dropped_frames", "Frames that gave way to newer ones.", "dropped"),
            ("edgeseg_bad_frames", "Frames that could not be read.", "bad_frames"),
            ("edgeseg_reconnects", "Losses after which frames came again.", "reconnects"),
        )
        for name, help_text, attribute in counters:
            counter = CounterMetricFamily(name, help_text, labels=_BY_SOURCE)
            for source in self._sources:
                counter.add_metric(_labels(source), getattr(source, attribute))
            yield counter
        state = GaugeMetricFamily(
            "edgeseg_source_state", "1 for the state it is in.", labels=(*_BY_SOURCE, "state")
        )
        share = GaugeMetricFamily(
            "edgeseg_class_share", "Share of the last frame.", labels=(*_BY_SOURCE, "class")
        )
        for source in self._sources:
            now = source.state
            for name in get_args(State):
                state.add_metric([*_labels(source), name], float(name == now))
            # What a camera showed before it was lost is not what is there now.
            shares = self._shares.get(source.index, {}) if now == "ok" else {}
            for name, value in shares.items():
                share.add_metric([*_labels(source), name], value)
        yield state
        yield share

    def _of_outputs(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        reports = self._context.reports()
        up = GaugeMetricFamily("edgeseg_sink_up", "1 while an output works.", labels=["sink"])
        for report in reports:
            up.add_metric([report.name], float(report.state == "ok"))
        yield up
        for figure, text in (
            ("written", "Results that an output took."),
            ("lost", "Results that an output could not take."),
            ("errors", "How often an output failed."),
        ):
            counter = CounterMetricFamily(f"edgeseg_sink_{figure}", text, labels=["sink"])
            for report in reports:
                counter.add_metric([report.name], getattr(report, figure))
            yield counter


def _labels(source: SourceStatus) -> list[str]:
    """As :data:`_BY_SOURCE` names them."""
    return [str(source.index), source.label]
