"""The document of a benchmark: how it was measured, the machine, and a row an engine.

``edgeseg bench --json`` prints it, reports are made from it, two of them are compared, and
committed results are read back through it, so its keys are a promise; ``schema`` changes when
they do. ``docs/benchmarks.md`` explains each key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from edgeseg.artifacts import read_capped
from edgeseg.bench.conditions import Conditions, During
from edgeseg.bench.energy import EnergyMeter
from edgeseg.documents import Document, first_problem
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError
from edgeseg.machine import Machine
from edgeseg.sidecar import ComputesIn, GateResult

SCHEMA = "edgeseg.bench/2"

Interval = tuple[float, float]
"""Lower and upper end."""


@dataclass(frozen=True)
class BenchConfig:
    """How long and how strictly to measure.

    Attributes:
        seconds: Measured time an engine, spread over the rounds.
        rounds: Blocks an engine has; their spread tells how far to trust the figures.
        min_block_seconds: A block is never shorter, so that a scheduler tick cannot rule it.
        warm_up_seconds: Give up waiting for a stable median after this.
        stable_within: Stable when medians of two consecutive windows of five calls differ by
            less than this fraction.
        max_other_load: Drop blocks in which other processes used more than this many cores.
        max_spread: Call a run noisy when the quartiles of its block medians lie further apart
            than this fraction of the median.
        cold_starts: Fresh processes an engine; 0 leaves start-up and memory out.
        pictures: At most this many different pictures, in turn.
        threads: Threads of engines whose row does not state another number; None: default.
        seed: Fixes the order of the engines and the bootstrap.
        confidence: Of the intervals, a fraction of 1.
        resamples: Of the bootstrap; 0 leaves the intervals out.
        idle_seconds: How long energy sensors are read at rest, where there are any.
    """

    seconds: float = 4.0
    rounds: int = 12
    min_block_seconds: float = 0.15
    warm_up_seconds: float = 5.0
    stable_within: float = 0.05
    max_other_load: float = 0.12
    max_spread: float = 0.10
    cold_starts: int = 3
    pictures: int = 16
    threads: int | None = None
    seed: int = 0
    confidence: float = 0.95
    resamples: int = 1000
    idle_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.rounds >= 1 and self.pictures >= 1):
            raise UsageError(
                "a benchmark needs seconds > 0, rounds >= 1 and pictures >= 1, "
                f"not {self.seconds:g}, {self.rounds} and {self.pictures}"
            )
        if not (0 < self.confidence < 1 and self.resamples >= 0):
            raise UsageError(
                "an interval needs a confidence between 0 and 1 and resamples >= 0, "
                f"not {self.confidence:g} and {self.resamples}"
            )

    @property
    def block_seconds(self) -> float:
        """Length of one block."""
        return max(self.min_block_seconds, self.seconds / self.rounds)


class BlockSeries(Document):
    """Consecutive calls of one engine, of which its row counts those that were ``kept``.

    Attributes:
        round: From 0; blocks of one round lie close together in time.
        calls: How many.
        median_ms: Of a call, end to end.
        mean_ms: The same.
        other_cores: Cores that other processes, or other guests of the host, kept busy.
        kept: False where that was too much, and enough quiet blocks were left.
    """

    round: int
    calls: int
    median_ms: float
    mean_ms: float
    other_cores: float = 0.0
    kept: bool = True


class PictureScore(Document):
    """What one labelled picture adds to the mean IoU of an engine; counts of pixels a class.

    IoU of a class over some pictures is the sum of its ``hits`` over the sum of its ``unions``
    (0 where the class is in neither truth nor prediction), mean IoU the mean over the classes
    that occur; so any subset or resample of pictures is scored exactly.

    Attributes:
        name: Path below the root of the data, with ``/``.
        iou: Mean IoU of this picture alone; None where no pixel of it is labelled.
    """

    name: str
    iou: float | None
    hits: tuple[int, ...]
    unions: tuple[int, ...]


class EngineAccuracy(Document):
    """Each labelled picture as one engine segments it, in the order of the data.

    Attributes:
        engine: As in the rows, of which several may be of one engine.
        classes: Their names.
        pictures: One entry each.
        confusion: Pixels by true class (rows) and predicted class, all pictures together.
    """

    engine: str
    classes: tuple[str, ...]
    pictures: tuple[PictureScore, ...]
    confusion: tuple[tuple[int, ...], ...] = ()

    def worst(self, count: int) -> tuple[PictureScore, ...]:
        """The pictures of lowest IoU, the lowest first; those without labels left out."""
        scored = [picture for picture in self.pictures if picture.iou is not None]
        return tuple(sorted(scored, key=lambda p: (p.iou or 0.0, p.name))[:count])


class DataSummary(Document):
    """The labelled pictures: name of their folder, split, and a hash of the files' bytes."""

    name: str
    split: str
    sha256: str


class Network(Document):
    """What an engine was made of: architecture, its options, and the input's width and height."""

    arch: str
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    size: tuple[int, int]


class Run(Document):
    """One row: an engine with a number of pictures a call and of threads.

    What was not measured is None or empty. Intervals are those of a bootstrap over blocks
    (:mod:`edgeseg.bench.bootstrap`), of accuracy over pictures.

    Attributes:
        engine: The artefact's path as it was given.
        network: By its card; None where there is none to read.
        computes_in: What floating layers really compute in, where the runtime chooses that.
        runs_here: Whether this machine can run it; ``reason`` says why not.
        low_precision_share: Share of multiply-accumulates in the reduced precision.
        gate: What the build found when it compared the engine with FP32.
        batch: Pictures a call.
        threads: Threads of the runtime; None: its own choice.
        latency_ms: Of one call, end to end: p50, p90, p95, p99, mean, max.
        latency_interval_ms: Of p50, p90, p95, p99 and mean; a bootstrap says nothing of max.
        stages_ms: As ``latency_ms`` for ``preprocess``, ``infer`` and ``restore``, which add up.
        stages_interval_ms: As ``latency_interval_ms``.
        throughput_fps: Pictures a second of one caller that never waits.
        speedup: p50 of the FP32 reference, of the same batch and threads, over this p50.
        mean_iou: Fraction of 1, on the labelled pictures.
        mean_iou_interval: Had other pictures of the same kind been labelled.
        drop: Mean IoU of the reference less this one's.
        drop_interval: The same pictures resampled for both.
        pixel_agreement: Share of pixels, at the network's size, labelled as the reference does.
        cold_start_ms: ``open``, ``first_inference`` and ``total`` of a fresh process.
        peak_rss_mib: Peak resident memory of such a process.
        energy_mj_per_frame: Millijoules a picture, all sensors together.
        energy_above_idle_mj_per_frame: The same less what they read before, at rest.
        power_w: Mean of all sensors together while this engine was measured.
        calls: Those counted.
        blocks: Those kept.
        blocks_dropped: Blocks left out because other processes used the processor.
        spread: Distance of the quartiles of the block medians over their median.
        latency_quantiles_ms: The quantiles 0 %, 1 % … 100 % of the calls.
        block_series: All blocks, in order of time.
    """

    engine: str
    name: str
    runtime: str
    runtime_version: str | None = None
    precision: str
    network: Network | None = None
    computes_in: ComputesIn | None = None
    bytes: int
    runs_here: bool = True
    reason: str | None = None
    low_precision_share: float | None = None
    gate: GateResult | None = None
    batch: int | None = None
    threads: int | None = None
    latency_ms: dict[str, float] | None = None
    latency_interval_ms: dict[str, Interval] | None = None
    stages_ms: dict[str, dict[str, float]] | None = None
    stages_interval_ms: dict[str, dict[str, Interval]] | None = None
    throughput_fps: float | None = None
    throughput_interval_fps: Interval | None = None
    speedup: float | None = None
    mean_iou: float | None = None
    mean_iou_interval: Interval | None = None
    drop: float | None = None
    drop_interval: Interval | None = None
    pixel_agreement: float | None = None
    cold_start_ms: dict[str, float] | None = None
    peak_rss_mib: float | None = None
    energy_mj_per_frame: float | None = None
    energy_above_idle_mj_per_frame: float | None = None
    power_w: float | None = None
    calls: int = 0
    blocks: int = 0
    blocks_dropped: int = 0
    spread: float | None = None
    latency_quantiles_ms: tuple[float, ...] = ()
    block_series: tuple[BlockSeries, ...] = ()


class BenchReport(Document):
    """All rows, the machine they were measured on, and what to keep in mind when reading them.

    Attributes:
        machine: What stays as it is: hardware, system, versions.
        before: The machine's state before the first warm-up.
        during: What happened to it while the blocks were measured.
        after: Its state after the last block.
        reference: The engine that drops, agreement and speed-ups relate to, None if there was
            none of precision FP32.
        pictures: How many were timed.
        labelled: How many were scored.
        data: Which those were.
        accuracy: How each of them was segmented, an entry an engine.
        energy: What was read for energy, or why nothing was.
        noisy: Whether something disturbed the timing; ``why`` names each disturbance.
        cut_short: Whether the run was interrupted; what was measured until then is here.
        notes: Sentences for a reader, those of ``why`` among them.
    """

    # Other keys are passed over: commands add their own to the document they print.
    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    schema_name: Literal["edgeseg.bench/2"] = Field(default="edgeseg.bench/2", alias="schema")
    created: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    machine: Machine
    before: Conditions | None = None
    during: During | None = None
    after: Conditions | None = None
    config: BenchConfig
    reference: str | None
    pictures: int
    labelled: int
    data: DataSummary | None = None
    energy: EnergyMeter | None = None
    noisy: bool = False
    why: tuple[str, ...] = ()
    cut_short: bool = False
    notes: tuple[str, ...]
    runs: tuple[Run, ...]
    accuracy: tuple[EngineAccuracy, ...] = ()

    def accuracy_of(self, run: Run) -> EngineAccuracy | None:
        """Picture by picture, None where nothing was scored."""
        return next((entry for entry in self.accuracy if entry.engine == run.engine), None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self, indent: int | None = None) -> str:
        """The JSON document as text."""
        return self.model_dump_json(by_alias=True, indent=indent)


def load_bench(path: Path) -> BenchReport:
    """Read a document that ``edgeseg bench --out FILE`` wrote, or ``--json`` printed.

    Raises:
        UsageError: There is no such file.
        MismatchedArtifact: It is a benchmark of another schema.
        CorruptArtifact: It is none.
    """
    try:
        document = json.loads(read_capped(path))
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(
            f"{path}: expected the JSON document of a benchmark, found other text ({error})",
            mend="write one with `edgeseg bench ENGINE… --out FILE.json`",
        ) from error
    return read_bench(document, str(path))


def read_bench(document: object, origin: str) -> BenchReport:
    """Validate what :meth:`BenchReport.to_dict` made.

    Args:
        document: Decoded JSON.
        origin: Where it came from, for the error message.

    Raises:
        MismatchedArtifact: It is a benchmark of another schema.
        CorruptArtifact: It is none.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if isinstance(schema, str) and schema != SCHEMA:
        raise MismatchedArtifact(
            f"{origin}: schema {schema!r}, this edgeseg reads {SCHEMA!r}",
            mend="measure again with `edgeseg bench ENGINE… --json`",
        )
    try:
        return BenchReport.model_validate(document)
    except ValidationError as error:
        raise CorruptArtifact(f"{origin}: {first_problem(error)}") from error
