"""The document of a benchmark: how it was measured, the machine, and a row an engine.

``edgeseg bench --json`` prints it, reports are made from it, and committed results are read
back through it, so its keys are a promise; ``schema`` changes when they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from edgeseg.documents import Document, first_problem
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError
from edgeseg.machine import Machine
from edgeseg.sidecar import ComputesIn, GateResult

SCHEMA = "edgeseg.bench/1"


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
        threads: Threads the engines were opened with, for the fresh processes; None: default.
        seed: Fixes the order of the engines.
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

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.rounds >= 1 and self.pictures >= 1):
            raise UsageError(
                "a benchmark needs seconds > 0, rounds >= 1 and pictures >= 1, "
                f"not {self.seconds:g}, {self.rounds} and {self.pictures}"
            )

    @property
    def block_seconds(self) -> float:
        """Length of one block."""
        return max(self.min_block_seconds, self.seconds / self.rounds)


class Run(Document):
    """One engine's row; what was not measured is None.

    Attributes:
        engine: The artefact's path as it was given.
        computes_in: What floating layers really compute in, where the runtime chooses that.
        runs_here: Whether this machine can run it; ``reason`` says why not.
        low_precision_share: Share of multiply-accumulates in the reduced precision.
        gate: What the build found when it compared the engine with FP32.
        batch: Pictures a call.
        latency_ms: Of one call, end to end: p50, p90, p95, p99, mean, max.
        stages_ms: The same for ``preprocess``, ``infer`` and ``restore``, which add up to it.
        throughput_fps: Pictures a second of one caller that never waits.
        speedup: p50 of the FP32 reference over this p50.
        mean_iou: Fraction of 1, on the labelled pictures.
        drop: Mean IoU of the reference less this one's.
        pixel_agreement: Share of pixels, at the network's size, labelled as the reference does.
        cold_start_ms: ``open``, ``first_inference`` and ``total`` of a fresh process.
        peak_rss_mib: Peak resident memory of such a process.
        blocks_dropped: Blocks left out because other processes used the processor.
        spread: Distance of the quartiles of the block medians over their median.
        latency_quantiles_ms: The quantiles 0 %, 1 % … 100 % of the calls.
    """

    engine: str
    name: str
    runtime: str
    runtime_version: str | None = None
    precision: str
    computes_in: ComputesIn | None = None
    bytes: int
    runs_here: bool = True
    reason: str | None = None
    low_precision_share: float | None = None
    gate: GateResult | None = None
    batch: int | None = None
    latency_ms: dict[str, float] | None = None
    stages_ms: dict[str, dict[str, float]] | None = None
    throughput_fps: float | None = None
    speedup: float | None = None
    mean_iou: float | None = None
    drop: float | None = None
    pixel_agreement: float | None = None
    cold_start_ms: dict[str, float] | None = None
    peak_rss_mib: float | None = None
    calls: int = 0
    blocks: int = 0
    blocks_dropped: int = 0
    spread: float | None = None
    latency_quantiles_ms: tuple[float, ...] = ()


class BenchReport(Document):
    """All rows, the machine they were measured on, and what to keep in mind when reading them.

    ``reference`` is the engine that drops, agreement and speed-ups relate to, None if there
    was none of precision FP32; ``pictures`` were timed, ``labelled`` ones scored.
    """

    # Other keys are passed over: commands add their own to the document they print.
    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    schema_name: Literal["edgeseg.bench/1"] = Field(default="edgeseg.bench/1", alias="schema")
    created: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))
    machine: Machine
    config: BenchConfig
    reference: str | None
    pictures: int
    labelled: int
    notes: tuple[str, ...]
    runs: tuple[Run, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return self.model_dump(mode="json", by_alias=True)

    def to_json(self, indent: int | None = None) -> str:
        """The JSON document as text."""
        return self.model_dump_json(by_alias=True, indent=indent)


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
            mend="measure again with `edgeseg bench --json`",
        )
    try:
        return BenchReport.model_validate(document)
    except ValidationError as error:
        raise CorruptArtifact(f"{origin}: {first_problem(error)}") from error
