"""Latency, accuracy and energy of engines, side by side on one machine.

Method: every engine is warmed up until its median stands still; then rounds, in each of which
every engine has one block of calls, in a random order that the seed fixes. So drift of clock
speed and temperature affects all engines equally. A block in which other processes used the
processor is dropped. A call is preprocess → infer → restore to the picture's own size, timed
at each boundary, so the stages add up to the whole. Intervals come from a bootstrap over the
blocks. Start-up and memory are measured in fresh processes. The machine is described before
and after, and disturbances are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg import machine
from edgeseg.benchmark import coldstart
from edgeseg.benchmark.accuracy import (
    Accuracy,
    agreements,
    compare,
    measure_flicker,
    open_sequence,
    score_pictures,
    summarise_data,
)
from edgeseg.benchmark.cases import Case, Unavailable, first_of_each_path
from edgeseg.benchmark.coldstart import ColdStart
from edgeseg.benchmark.conditions import Conditions, ConditionsWatch, During, read_conditions
from edgeseg.benchmark.document import BenchReport, EngineAccuracy, Run, SequenceSummary
from edgeseg.benchmark.energy import EnergyMeter, Sensors
from edgeseg.benchmark.rows import (
    Measured,
    disturbances,
    disturbed_machine,
    row,
    shortcomings,
    unavailable_row,
    with_speedups,
)
from edgeseg.benchmark.significance import bootstrap_of
from edgeseg.benchmark.timing import Images, Timing, interleave, warm_up
from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, load_image
from edgeseg.engines.base import Engine
from edgeseg.errors import UsageError
from edgeseg.options.benchmark import BenchConfig

__all__ = ["Case", "Unavailable", "bench", "noise_frames"]


def bench(  # noqa: PLR0913 - each keyword is a thing to measure, or how
    engines: Sequence[Engine | Case],
    *,
    data: Split | None = None,
    images: Images = (),
    unavailable: Sequence[Unavailable] = (),
    sequence: Path | None = None,
    config: BenchConfig | None = None,
    notes: Sequence[str] = (),
    track: Track = silent,
) -> BenchReport:
    """Benchmark ``engines`` against each other.

    A keyboard interrupt ends the measuring, not the report: what is whole by then is in it,
    ``cut_short`` is true, and engines without a block of calls are listed as not measured.

    Args:
        engines: Open engines, or cases of one with several batches or threads; the first of
            precision FP32 is the reference for the others.
        data: Labelled pictures, for mean IoU; also the pictures timed where ``images`` is empty.
        images: uint8 (H, W, 3) BGR or (H, W) grey, to time with.
        unavailable: Artefacts to list that cannot run here.
        sequence: Video, or folder of pictures in the order of time, to measure flicker on.
        config: Duration and strictness of the measurement.
        notes: Notes to put before those of the run.

    Raises:
        UsageError: No engine at all, or no picture to time with.
        EdgesegError: As the engines and the readers of ``data`` do.
    """
    config = config or BenchConfig()
    if not engines and not unavailable:
        raise UsageError("nothing to measure: no engine given", hint="name an artefact to measure")
    images = list(images[: config.pictures])
    if data and not images:
        images = [load_image(sample.image) for sample in data.samples[: config.pictures]]
    if engines and not images:
        raise UsageError("no picture to time with", hint="give labelled data or pictures")
    if sequence is not None:
        open_sequence(sequence).close()  # so that what cannot be read is known before measuring
    cases = [e if isinstance(e, Case) else Case.of(e, config.threads) for e in engines]
    measurement = Measurement(cases, data, images, sequence, config, track)
    measurement.run()
    return measurement.report(unavailable, notes)


class Measurement:
    """Results so far; an interruption loses only the step in progress."""

    def __init__(
        self,
        cases: Sequence[Case],
        data: Split | None,
        images: Images,
        sequence: Path | None,
        config: BenchConfig,
        track: Track,
    ) -> None:
        self.cases = cases
        self.data = data if data is not None and len(data) else None
        self.images = images
        self.sequence = sequence
        self.config = config
        self.track = track
        self.reference = next(
            (case.engine for case in cases if case.engine.card.precision == "fp32"), None
        )
        self.machine = machine.describe()
        self.cut_short = False
        self.timings: list[Timing] = []
        self.before: Conditions | None = None
        self.during: During | None = None
        self.after: Conditions | None = None
        self.energy = EnergyMeter()
        self.idle_w: float | None = None
        self.scores: dict[Path, EngineAccuracy] = {}
        self.alike: dict[Path, float] = {}
        self.flicker: dict[Path, float | None] = {}
        self.summary: SequenceSummary | None = None
        self.starts: dict[tuple[Path, int | None], list[ColdStart | str]] = {}

    def run(self) -> None:
        """Time, score, start afresh; a keyboard interrupt ends it early."""
        steps: tuple[Callable[[], None], ...] = (self.time, self.score, self.start_afresh)
        try:
            for step in steps:
                step()
        except KeyboardInterrupt:
            self.cut_short = True

    def time(self) -> None:
        """Warm up, then interleave blocks of all cases, and watch the machine meanwhile."""
        with Sensors() as sensors:
            self.energy = sensors.meter()
            sensors.watch_idle(self.config.idle_seconds)
            self.energy, self.idle_w = sensors.meter(), sensors.idle_w
            for case in self.track(self.cases, "Warming up", len(self.cases)):
                stable = warm_up(case, self.images, self.config)
                self.timings.append(Timing(case, stable))
            self.before, watch = read_conditions(), ConditionsWatch()
            try:
                interleave(self.timings, self.images, self.config, self.track, sensors.joules)
            finally:
                self.during, self.after = watch.during(), read_conditions()

    def score(self) -> None:
        """Accuracy of each artefact, however many cases it has."""
        engines = [case.engine for case in first_of_each_path(self.cases)]
        if self.data is not None:
            for engine in engines:
                self.scores[engine.path] = score_pictures(engine, self.data, self.track)
        if self.reference is not None:
            others = [engine for engine in engines if engine is not self.reference]
            self.alike = agreements(self.reference, others, self.images, self.track)
            self.alike[self.reference.path] = 1.0
        if self.sequence is not None and engines:
            self.flicker, self.summary = measure_flicker(
                engines, self.sequence, self.config.sequence_frames, self.track
            )

    def start_afresh(self) -> None:
        """Fresh processes, the cases in turn."""
        keys = dict.fromkeys((case.engine.path, case.threads) for case in self.cases)
        self.starts = {key: [] for key in keys}
        rounds = self.config.cold_starts
        for _ in self.track(range(rounds), "Starting afresh", rounds):
            for (path, threads), found in self.starts.items():
                found.append(coldstart.measure(path, threads=threads))

    def report(self, unavailable: Sequence[Unavailable], notes: Sequence[str] = ()) -> BenchReport:
        """The document of what was found out."""
        timed = [timing for timing in self.timings if timing.blocks]
        measured = [self._measured(timing) for timing in timed]
        runs = [row(entry, self.config) for entry in measured]
        why = list(disturbances(measured, runs, self.config))
        if self.before and self.during and self.after:
            why += disturbed_machine(self.before, self.during, self.after)
        base = None if self.reference is None else self.reference.path
        absent = [*unavailable, *self._not_reached(timed)]
        return BenchReport(
            machine=self.machine,
            before=self.before,
            during=self.during,
            after=self.after,
            config=self.config,
            reference=None if base is None else str(base),
            pictures=len(self.images),
            labelled=0 if self.data is None else len(self.data),
            data=None if self.data is None else summarise_data(self.data),
            sequence=self.summary,
            energy=self.energy,
            noisy=bool(why),
            why=tuple(why),
            cut_short=self.cut_short,
            notes=(*notes, *self._notes(measured, runs, why)),
            runs=(*with_speedups(runs, base), *map(unavailable_row, absent)),
            accuracy=tuple(self.scores.values()),
        )

    def _measured(self, timing: Timing) -> Measured:
        path, threads = timing.case.engine.path, timing.case.threads
        base = None if self.reference is None else self.scores.get(self.reference.path)
        accuracy: Accuracy = compare(
            self.scores.get(path), base, self.alike.get(path), bootstrap_of(self.config)
        )
        start = _median_or_reason(self.starts.get((path, threads), []))
        accuracy = replace(accuracy, flicker=self.flicker.get(path))
        return Measured(timing, accuracy, start, self.idle_w)

    def _not_reached(self, timed: Sequence[Timing]) -> list[Unavailable]:
        done = {timing.case.engine.path for timing in timed}
        paths = dict.fromkeys(case.engine.path for case in self.cases)
        return [Unavailable(path, "interrupted before it") for path in paths if path not in done]

    def _notes(
        self, measured: Sequence[Measured], runs: Sequence[Run], why: Sequence[str]
    ) -> list[str]:
        cut = (
            ["The run was interrupted: what is missing was not measured."] if self.cut_short else []
        )
        lacking = shortcomings(measured, runs, self.config, reference=self.reference is not None)
        return [*cut, *(f"Noisy: {sentence}" for sentence in why), *lacking]


def _median_or_reason(found: list[ColdStart | str]) -> ColdStart | str | None:
    good = [start for start in found if isinstance(start, ColdStart)]
    if len(good) == len(found):
        return coldstart.medians(good) if good else None
    return next(start for start in found if isinstance(start, str))


def noise_frames(count: int = 4) -> list[NDArray[np.uint8]]:
    """1280×720 BGR noise, for timing without pictures; latency is the same."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (720, 1280, 3), np.uint8) for _ in range(count)]
