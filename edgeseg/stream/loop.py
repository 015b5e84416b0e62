"""The streaming loop: newest frames → preprocess → infer → label maps, one result per frame.

Each source is read and decoded in its own thread. Inference runs in one of two modes:

``latency``
    In the caller's thread, when the caller asks for the next result, so that a frame never
    waits in a queue before inference. The default for one live camera.
``throughput``
    In one thread per engine, while the caller handles earlier results. The default for files,
    where latency does not matter, and for several cameras, which share the engines in batches.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, overload

from typing_extensions import Self

from edgeseg.engines.base import Engine
from edgeseg.engines.tiles import TiledPipeline
from edgeseg.errors import UsageError
from edgeseg.options.streaming import Mode, StreamOptions
from edgeseg.sources.credentials import with_credentials, with_trust
from edgeseg.sources.decoding import device_for
from edgeseg.sources.own import FrameSource, OwnFrame, from_frames
from edgeseg.sources.spec import SourceSpec, parse_source
from edgeseg.stream.arrangement import Arrangement, Chooser
from edgeseg.stream.lanes import Lane, Lanes
from edgeseg.stream.latency import StageClock
from edgeseg.stream.privacy import PrivacyFilter
from edgeseg.stream.reader import Reader
from edgeseg.stream.result import StreamResult, moment
from edgeseg.stream.slots import Intake
from edgeseg.stream.smoothing import Steadiness
from edgeseg.stream.view import View

logger = logging.getLogger(__name__)

_TICK_S = 0.1
"""Longest delay before a stop request, stall or time limit is noticed while no frames arrive."""

_JOIN_S = 0.25
"""How long to wait at the end for readers that are blocked in a read."""

AnySource: TypeAlias = (
    "str | int | Path | SourceSpec | FrameSource | Callable[[], Iterable[OwnFrame]]"
)


class Stream:
    """Segments sources frame by frame: a context manager that can be iterated over once.

    ::

        with edgeseg.load("model.onnx") as engine, Stream("camera:0", engine) as stream:
            for result in stream:
                show(result.overlay())

    Args:
        sources: One source, or a list of several: as accepted by
            :func:`edgeseg.stream.parse_source`, or an object that delivers frames, which
            :func:`edgeseg.stream.from_frames` describes.
        engines: One engine, or several engines of the same network. In the mode ``throughput``
            each runs in its own thread. The stream neither opens nor closes them.
        options: Stream options.

    Attributes:
        mode: Mode in which the stream runs.
        frames: Number of results so far.
        steadiness: Flicker of each source's label maps.
        clock: Timings of the stages.

    Raises:
        UsageError: A source cannot be parsed, there is no source or no engine, or a class or zone
            to obscure does not exist, or tiles have no room for their margins.
        CorruptArtifact: The file of a zone to cover holds no zone.
        RuntimeMissing: The device to decode on is missing.
    """

    # Two signatures, since type checkers do not see what a list of several kinds holds where
    # the parameter may be an iterable of frames as well.
    @overload
    def __init__(
        self,
        sources: Sequence[AnySource],
        engines: Engine | Sequence[Engine],
        options: StreamOptions | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        sources: AnySource,
        engines: Engine | Sequence[Engine],
        options: StreamOptions | None = None,
    ) -> None: ...

    def __init__(
        self,
        sources: AnySource | Sequence[AnySource],
        engines: Engine | Sequence[Engine],
        options: StreamOptions | None = None,
    ) -> None:
        several = _engines(engines)
        options = options or StreamOptions()
        if several and options.tiles is None:
            options = replace(options, tiles=several[0].card.input.tiles)
        self.options = options
        specs = _specs(sources, options)
        if not specs or not several:
            raise UsageError("a stream needs a source and an engine")
        if options.decode != "auto":  # which never fails, and is found out where it is needed
            device_for(options.decode)
        self.clock = StageClock()
        self.frames = 0
        self._parallel: Lanes | None = None
        self._chooser: Chooser | None = None
        self._stop_requested = False
        self._started_at: float | None = None
        changed = threading.Condition()
        self._readers = [
            Reader(
                spec,
                realtime=spec.realtime if options.realtime is None else options.realtime,
                strict=options.strict,
                # One dead camera must not end the others.
                persistent=options.keep_trying or len(specs) > 1,
                index=index,
                changed=changed,
            )
            for index, spec in enumerate(specs)
        ]
        self.steadiness = tuple(Steadiness(options.smooth) for _ in specs)
        self._intake = Intake([reader.slot for reader in self._readers], changed)
        self._max_batch = _frames_per_batch(several, options, len(specs))
        self._privacy = PrivacyFilter(options, several[0].card.classes, self._readers)
        for reader in self._readers:
            if reader.spec.kind == "url" and not self._privacy.active:
                reader.offer_packets()
        self._view = View(options.opacity, options.outline, options.names, options.legend)
        self._lanes = [self._lane(engine) for engine in several]
        alone = len(specs) == 1 and self._readers[0].realtime
        self.mode: Mode = options.mode or ("latency" if alone else "throughput")

    def _lane(self, engine: Engine) -> Lane:
        return Lane(engine, self._view, self._privacy.cover, _tiled(engine, self.options))

    @property
    def arrangement(self) -> Arrangement:
        """Engines at work; chosen by measuring where one engine came without a number of threads.

        In the mode ``throughput``, with sources of which every frame is delivered.
        """
        return self._chooser.arrangement if self._chooser else Arrangement(len(self._lanes))

    @property
    def sources(self) -> tuple[Reader, ...]:
        """Current status of each source: label, state, frames, drops."""
        return tuple(self._readers)

    @property
    def dropped(self) -> int:
        """Number of frames dropped in favour of a newer one, over all sources."""
        return sum(reader.dropped for reader in self._readers)

    @property
    def seconds(self) -> float:
        """Seconds since the stream was ready or began to wait for its first frame; 0 before."""
        return 0.0 if self._started_at is None else time.monotonic() - self._started_at

    @property
    def on_gpu(self) -> bool:
        """Whether an engine keeps whole frames on its GPU; known from the first frame on."""
        return any(lane.on_gpu for lane in self._lanes)

    def want_overlays(self, wanted: bool) -> None:
        """Set whether a GPU should draw overlays for the frames that follow.

        Results offer an overlay in either case; this avoids downloading unused ones.
        """
        # A GPU would draw over what must not be seen, and before the labels are smoothed.
        on_gpu = wanted and not self._privacy.active and self.options.smooth is None
        for lane in self._lanes:
            lane.overlays = on_gpu

    def stop(self) -> None:
        """End the iteration within 0.1 s plus the time of the running inference.

        May be called from any thread and from a signal handler: it acquires no lock.
        """
        self._stop_requested = True

    def __enter__(self) -> Self:
        """Open the sources and warm up the engines concurrently.

        The first frame of a file waits until it is segmented, and warms up an engine as well.

        Returns as soon as one source delivers frames; cameras that cannot be opened while
        others can are retried. With ``keep_trying`` it also returns once a camera failed to open,
        so that viewers and a service manager can see that the stream is waiting for it.

        Raises:
            OpenFailed: No camera can be opened, or a source that is not a camera cannot.
            AuthFailed: The only camera rejects the credentials.
            InferenceError: An engine fails during warm-up.
        """
        for reader in self._readers:
            reader.start()
        try:
            if any(reader.realtime for reader in self._readers):
                for lane in self._lanes:
                    lane.warm_up()
            while not self._stop_requested and not self._ready():
                self._intake.wait(_TICK_S)
        except BaseException:
            self._close_readers()
            raise
        for reader in self._readers:
            reader.reset_drops()
        self._started_at = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._close_readers()

    def __iter__(self) -> Iterator[StreamResult]:
        """Yield results until the sources end, a limit is reached or :meth:`stop` is called.

        Outside a ``with`` block, the sources are opened first and closed at the end.

        Raises:
            SourceLost: With ``strict``, a file ended before its declared end.
            InferenceError: An engine failed.
        """
        return (result for result in self.ticks() if result is not None)

    def ticks(self) -> Iterator[StreamResult | None]:
        """Yield results as iteration does, and None about every 0.1 s while none arrives."""
        with contextlib.ExitStack() as stack:
            if self._started_at is None:
                stack.enter_context(self)
            for lane in self._lanes:
                stack.callback(lane.close)
            latency = self.mode == "latency"
            batches = self._one_lane() if latency else self._all_lanes(stack)
            for results in batches:
                for reader in self._readers:
                    reader.watch()
                if not results:
                    if self._parallel is None or self._parallel.idle:
                        self._raise_failures()
                    yield None
                for result in results:
                    if self._over():
                        return
                    self._finish(result)
                    try:
                        yield result
                    finally:  # what the receiver timed is there by now
                        for stage, milliseconds in result.stages_ms.items():
                            self.clock.add(stage, milliseconds)
            self._raise_failures()

    def _one_lane(self) -> Iterator[list[StreamResult]]:
        """Yield batches of results, computed on demand in this thread."""
        lane = self._lanes[0]
        while not self._over():
            done = self._all_done()
            frames = self._intake.take(self._max_batch, 0 if done else _TICK_S)
            if not frames and done:
                return
            if frames:
                lane.submit(frames)
            yield lane.collect() if frames else []

    def _all_lanes(self, stack: contextlib.ExitStack) -> Iterator[list[StreamResult]]:
        """Yield batches of results, computed in other threads."""
        lanes = Lanes(self._lanes, self._intake, self._all_done, self._max_batch)
        self._parallel = lanes
        if len(self._lanes) == 1 and not any(reader.realtime for reader in self._readers):
            self._chooser = Chooser(self._lanes[0], lanes, self._lane, self._frames_left)
            stack.callback(self._chooser.close)
        stack.callback(lanes.close)
        lanes.start()
        while not self._over() and not lanes.done:
            if self._chooser is not None:
                self._chooser.step()
            yield lanes.take(_TICK_S)

    def _frames_left(self) -> int | None:
        """Number of results to come; None if a source does not declare its frames."""
        declared = [reader.declared for reader in self._readers]
        known = [count for count in declared if count is not None]
        left = [] if len(known) < len(declared) else [sum(known)]
        left += [] if self.options.max_frames is None else [self.options.max_frames]
        return min(left) - self.frames if left else None

    def _finish(self, result: StreamResult) -> None:
        """Smooth, obscure and count a result, in the order of its source's frames."""
        reader = self._readers[result.camera]
        self.steadiness[result.camera].take(result, moment(reader, result))
        self._privacy.apply(result)  # all that leaves the stream passes here
        reader.taken += 1
        self.frames += 1

    def _over(self) -> bool:
        options = self.options
        return (
            self._stop_requested
            or (options.max_frames is not None and self.frames >= options.max_frames)
            or (options.duration is not None and self.seconds >= options.duration)
        )

    def _all_done(self) -> bool:
        return all(reader.over for reader in self._readers)

    def _ready(self) -> bool:
        """Whether frames arrive, or never will."""
        self._raise_failures()
        if any(reader.started for reader in self._readers):
            return True
        if self.options.keep_trying and any(r.state == "reconnecting" for r in self._readers):
            return True
        errors = [reader.error for reader in self._readers]
        if not self.options.keep_trying and all(errors):
            raise next(error for error in errors if error)
        return self._all_done()

    def _raise_failures(self) -> None:
        """Raise the error of a failed source, unless it is a camera and others go on."""
        failed = [reader for reader in self._readers if reader.state == "failed"]
        alone = len(failed) == len(self._readers)
        for reader in failed:
            if reader.error and (alone or self.options.strict or not reader.spec.live):
                raise reader.error

    def _close_readers(self) -> None:
        for reader in self._readers:
            reader.stop()
        until = time.monotonic() + _JOIN_S
        for reader in self._readers:
            reader.close(max(0.0, until - time.monotonic()))


def _engines(given: Engine | Sequence[Engine]) -> list[Engine]:
    several = [given] if isinstance(given, (Engine, str, Path)) else list(given or ())
    for engine in several:
        if not isinstance(engine, Engine):
            raise UsageError(
                f"expected an engine, found {type(engine).__name__} {str(engine)[:80]!r}",
                hint="open it with edgeseg.load(PATH)",
            )
    return several


def _specs(given: AnySource | Sequence[AnySource], options: StreamOptions) -> list[SourceSpec]:
    """Parse sources and give them what the options say of all."""
    specs = []
    for source in _listed(given):
        spec = with_credentials(_spec(source), options.credentials)
        specs.append(replace(spec, max_pixels=options.max_pixels, decode=options.decode))
    return with_trust(specs, options.ca, options.insecure_camera)


def _listed(sources: AnySource | Sequence[AnySource]) -> list[AnySource]:
    if isinstance(sources, Sequence) and not isinstance(sources, str):
        return list(sources)
    return [sources]


def _spec(source: AnySource) -> SourceSpec:
    if isinstance(source, (str, int, Path, SourceSpec)):
        return parse_source(source)
    return from_frames(source)


def _tiled(engine: Engine, options: StreamOptions) -> TiledPipeline | None:
    """Return the pipeline of tiles, if wanted; raises UsageError if the margin is too large."""
    if not options.tiles:
        return None
    return TiledPipeline(engine, options.tile_margin, options.batch or 1)


def _frames_per_batch(engines: Sequence[Engine], options: StreamOptions, sources: int) -> int:
    """Maximum number of frames per inference; of tiles, a batch holds those of one frame."""
    if options.tiles:
        return 1
    limit = wanted = options.batch or sources
    for engine in engines:
        fixed = engine.capabilities.batch
        if fixed is not None and fixed > wanted:
            logger.warning(
                "%s takes batches of %d, of which %d hold a frame: an engine for batches of %d "
                "is quicker",
                *(engine.path.name, fixed, wanted, wanted),
            )
        limit = min(limit, engine.capabilities.max_batch or limit)
    return limit
