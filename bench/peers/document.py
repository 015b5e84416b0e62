"""Stored results of a benchmark run."""

from typing import Any, Literal

from edgeseg.artifacts.documents import Document


class Row(Document):
    """One case over the file; medians over the blocks that were kept.

    Attributes:
        key: Of the case, which says how it was started.
        peer: Whose environment.
        name: In tables.
        precision: ``fp32`` or ``int8``.
        alone: A program that infers on random input, without frames around it.
        fps: Frames a second.
        spread: Distance of the quartiles of ``fps``, as a fraction of it.
        blocks: Blocks kept, of ``rounds``.
        noisy: Others were busy in some of them.
        frames: In these blocks.
        infer_ms: In the network; where ``alone``, the median that the program states.
        outside_ms: From the decoded frame to the overlay, besides inference and waiting.
        work_ms: Both together; p50 and p99 over all frames.
        loop_ms: From the decoded frame to the overlay, waiting in own queues included.
        cpu_ms: CPU time a frame of the whole process, decoding included.
        peak_mib: Most memory of the process.
    """

    key: str
    peer: str
    name: str
    precision: str
    alone: bool
    fps: float
    spread: float
    blocks: int
    noisy: bool
    frames: int
    infer_ms: float
    outside_ms: float | None
    work_ms: dict[str, float] | None
    loop_ms: dict[str, float] | None
    cpu_ms: float | None
    peak_mib: float


class LiveRow(Document):
    """One case on the camera: ages of frames when shown, ms; the last ten's median is ``late``."""

    key: str
    name: str
    precision: str
    p50: float
    p99: float
    late: float
    shown: int
    sent: int
    cpu_cores: float


class Comparison(Document):
    """``mine / theirs`` within a round: the median, its quartiles, and the goal if there is one."""

    what: str
    mine: str
    theirs: str
    median: float
    low: float
    high: float
    rounds: int
    at_most: float | None


class Measured(Document):
    """One run of all peers."""

    schema_version: Literal[1] = 1
    measured: str
    command: str
    remark: str | None
    machine: dict[str, Any]
    load_before: float
    rounds: int
    seconds: float
    live_seconds: float
    clip: str
    network: str
    versions: dict[str, dict[str, str]]
    threads: dict[str, int | None]
    remarks: tuple[str, ...]
    rows: tuple[Row, ...]
    live: tuple[LiveRow, ...]
    comparisons: tuple[Comparison, ...]
