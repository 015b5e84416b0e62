"""The document of a benchmark: configuration, machine, and a row per engine.

``edgeseg bench --json`` prints it, reports are made from it, two of them are compared, and
committed results are read back through it, so its keys are a promise; ``schema`` changes when
they do. ``docs/benchmarks.md`` explains each key.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from edgeseg.artifacts.documents import Document, first_problem
from edgeseg.artifacts.files import read_capped
from edgeseg.artifacts.sidecar import ComputesIn, GateResult
from edgeseg.benchmark.conditions import Conditions, During
from edgeseg.benchmark.energy import EnergyMeter
from edgeseg.errors import CorruptArtifact, MismatchedArtifact
from edgeseg.machine import Machine
from edgeseg.metrics import Interval
from edgeseg.options.benchmark import BenchConfig

SCHEMA = "edgeseg.bench/2"


class BlockSeries(Document):
    """Consecutive calls of one engine, of which its row counts those that were ``kept``.

    Attributes:
        round: Index of the round, from 0; its blocks lie close together in time.
        calls: Number of calls.
        median_ms: Median time of a call, end to end.
        mean_ms: Mean time of a call, end to end.
        other_cores: Cores that other processes, or other guests of the host, kept busy.
        kept: False if that was too much, and enough quiet blocks remained.
    """

    round: int
    calls: int
    median_ms: float
    mean_ms: float
    other_cores: float = 0.0
    kept: bool = True


class PictureScore(Document):
    """Pixel counts per class that one labelled picture adds to an engine's mean IoU.

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
        engine: Path of the engine as in the rows; several rows may share one.
        classes: Names of the classes.
        pictures: One entry per picture.
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


class SequenceSummary(Document):
    """The frames that flicker was measured on: name of the video or folder, and their number."""

    name: str
    frames: int


class NetworkSummary(Document):
    """The network of an engine: architecture, its options, and the input's width and height."""

    arch: str
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    size: tuple[int, int]


class Run(Document):
    """One row: an engine with a batch size and a number of threads.

    Fields that were not measured are None or empty. Intervals come from a bootstrap over blocks
    (:mod:`edgeseg.benchmark.significance`), those of accuracy over pictures.

    Attributes:
        engine: Path of the artefact as given.
        network: The network as its card describes it; None if the card cannot be read.
        computes_in: Actual precision of floating-point layers, if the runtime chooses it.
        runs_here: Whether this machine can run it; ``reason`` says why not.
        low_precision_share: Share of multiply-accumulates in the reduced precision.
        gate: Result of the accuracy gate when the engine was built.
        batch: Pictures per call.
        threads: Threads of the runtime; None for its default.
        latency_ms: Time of one call, end to end: p50, p90, p95, p99, mean, max.
        latency_interval_ms: Intervals of p50, p90, p95, p99 and mean; max has none.
        stages_ms: Like ``latency_ms``, for ``preprocess``, ``infer`` and ``restore``.
        stages_interval_ms: Like ``latency_interval_ms``, for each stage.
        throughput_fps: Pictures per second of one caller that never waits.
        speedup: p50 of the FP32 reference, of the same batch and threads, over this p50.
        mean_iou: Fraction of 1, on the labelled pictures.
        mean_iou_interval: Interval of ``mean_iou`` over resampled pictures.
        drop: Mean IoU of the reference less this one's.
        drop_interval: Interval of ``drop``, with the same resampled pictures for both engines.
        pixel_agreement: Share of pixels, at the network's size, labelled as the reference does.
        flicker: Share of pixels of the sequence whose label changes and changes back.
        cold_start_ms: ``open``, ``first_inference`` and ``total`` of a fresh process.
        peak_rss_mib: Peak resident memory of such a process.
        energy_mj_per_frame: Millijoules per picture, sum of all sensors.
        energy_above_idle_mj_per_frame: ``energy_mj_per_frame`` less the reading at rest.
        power_w: Mean of all sensors together while this engine was measured.
        calls: Number of calls in the kept blocks.
        blocks: Number of kept blocks.
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
    network: NetworkSummary | None = None
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
    flicker: float | None = None
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
        machine: Fixed properties of the machine: hardware, system, versions.
        before: The machine's state before the first warm-up.
        during: Load and throttling while the blocks were measured.
        after: Its state after the last block.
        reference: The engine that drops, agreement and speed-ups relate to, None if there was
            none of precision FP32.
        pictures: Number of timed pictures.
        labelled: Number of scored pictures.
        data: Data set of the scored pictures.
        sequence: Frames that flicker was measured on.
        accuracy: Scores of each picture, an entry per engine.
        energy: Energy sensors that were read, or why none was.
        noisy: Whether something disturbed the timing; ``why`` names each disturbance.
        cut_short: Whether the run was interrupted; results up to then are included.
        notes: Sentences for the reader, including those of ``why``.
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
    sequence: SequenceSummary | None = None
    energy: EnergyMeter | None = None
    noisy: bool = False
    why: tuple[str, ...] = ()
    cut_short: bool = False
    notes: tuple[str, ...]
    runs: tuple[Run, ...]
    accuracy: tuple[EngineAccuracy, ...] = ()

    def accuracy_of(self, run: Run) -> EngineAccuracy | None:
        """The scores of each picture; None if nothing was scored."""
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
            hint="write one with `edgeseg bench ENGINE… --out FILE.json`",
        ) from error
    return read_bench(document, str(path))


def read_bench(document: object, origin: str) -> BenchReport:
    """Validate a document made by :meth:`BenchReport.to_dict`.

    Args:
        origin: Where it came from, for the error message.

    Raises:
        MismatchedArtifact: It is a benchmark of another schema.
        CorruptArtifact: It is none.
    """
    schema = document.get("schema") if isinstance(document, dict) else None
    if isinstance(schema, str) and schema != SCHEMA:
        raise MismatchedArtifact(
            f"{origin}: schema {schema!r}, this edgeseg reads {SCHEMA!r}",
            hint="measure again with `edgeseg bench ENGINE… --json`",
        )
    try:
        return BenchReport.model_validate(document)
    except ValidationError as error:
        raise CorruptArtifact(f"{origin}: {first_problem(error)}") from error
