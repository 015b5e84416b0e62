"""The document of a comparison: what differs between two benchmarks, row by row."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from edgeseg.artifacts.documents import Document, plural
from edgeseg.benchmark.document import Run
from edgeseg.metrics import Interval
from edgeseg.options.benchmark import CompareConfig, Metric

Verdict = Literal["better", "worse", "same", "inconclusive"]

WORDS: dict[tuple[Metric, Verdict], str] = {
    ("latency", "better"): "faster",
    ("latency", "worse"): "slower",
    ("mean_iou", "better"): "more accurate",
    ("mean_iou", "worse"): "less accurate",
    ("memory", "better"): "less memory",
    ("memory", "worse"): "more memory",
    ("size", "better"): "smaller",
    ("size", "worse"): "larger",
}
"""How a verdict reads that is neither "same" nor "inconclusive"."""


class FigureChange(Document):
    """One figure of one row, before and after.

    Attributes:
        metric: ``latency`` in ms (median of the block medians), ``mean_iou`` a fraction of 1,
            ``memory`` in MiB, ``size`` in bytes.
        change: after / before; of ``mean_iou`` after - before.
        interval: Interval of ``change``; None if the metric has none.
        p: P-value of no difference, corrected for the number of rows; None if not tested.
        verdict: Judgement of the change.
        why: Clause that justifies the verdict.
    """

    metric: Metric
    before: float
    after: float
    change: float
    interval: Interval | None = None
    p: float | None = None
    verdict: Verdict
    why: str

    @property
    def word(self) -> str:
        """``slower``, ``less accurate`` … ``same``, ``inconclusive``."""
        return WORDS.get((self.metric, self.verdict), self.verdict)

    @property
    def figures(self) -> str:
        """``25.02 → 27.05 ms``, in the unit that people read."""
        unit, scale = {
            "latency": ("ms", 1.0),
            "mean_iou": ("%", 100.0),
            "memory": ("MiB", 1.0),
            "size": ("MiB", 1 / 2**20),
        }[self.metric]
        return f"{scale * self.before:.4g} → {scale * self.after:.4g} {unit}"

    @property
    def amount(self) -> str:
        """``+8.1 % (+6.9 … +9.2)``; points of mean IoU, with the interval where there is one."""
        unit, scale = (
            ("points", self.change) if self.metric == "mean_iou" else ("%", self.change - 1)
        )
        shift = 0.0 if self.metric == "mean_iou" else 1.0
        ends = [f"{_signed(100 * (end - shift))}" for end in self.interval or ()]
        return f"{_signed(100 * scale)} {unit}" + (f" ({' … '.join(ends)})" if ends else "")


class ComparedRow(Document):
    """A row that both benchmarks have; its keys are those of ``edgeseg.benchmark.document.Run``."""

    engine: str
    name: str
    runtime: str
    precision: str
    batch: int | None
    threads: int | None
    changes: tuple[FigureChange, ...]

    def of(self, metric: Metric) -> FigureChange | None:
        """The change of one figure, None where it was not compared."""
        return next((change for change in self.changes if change.metric == metric), None)


class Side(Document):
    """One of the two benchmarks: its file's name, when and on what, and why it is noisy."""

    origin: str
    created: datetime
    machine: str
    noisy: bool
    why: tuple[str, ...]


class Comparison(Document):
    """Differences between two benchmarks.

    Attributes:
        like_with_like: Whether machine, threads and pictures were the same; ``differences``
            says what was not. ``versions`` that differ do not prevent it: they are often what is
            compared.
        only_before: Rows that only the first has, in words.
        only_after: Likewise.
        notes: Sentences to keep in mind.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_name: Literal["edgeseg.bench-compare/1"] = Field(
        default="edgeseg.bench-compare/1", alias="schema"
    )
    config: CompareConfig
    before: Side
    after: Side
    like_with_like: bool
    differences: tuple[str, ...]
    versions: tuple[str, ...]
    rows: tuple[ComparedRow, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, and beside it ``regressions``: what is worse, in words."""
        return self.model_dump(mode="json", by_alias=True) | {"regressions": self.regressions()}

    def regressions(self) -> list[str]:
        """Each figure that is worse: ``nuclei: model.onnx, …: slower, +8.1 % (+6.9 … +9.2)``."""
        return [
            f"{describe(row)}: {change.word}, {change.amount}"
            for row in self.rows
            for change in row.changes
            if change.verdict == "worse"
        ]


def describe(run: Run | ComparedRow) -> str:
    """``nuclei: model.int8.onnx, INT8, onnxruntime, batch 1, 2 threads``."""
    parts = [f"{run.name}: {Path(run.engine).name}", run.precision.upper(), run.runtime]
    parts += [f"batch {run.batch}"] if run.batch else []
    parts += [plural(run.threads, "thread")] if run.threads else []
    return ", ".join(parts)


def _signed(value: float) -> str:
    text = f"{value:+.1f}" if abs(value) >= 10 else f"{value:+.2f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")
