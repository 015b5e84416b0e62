"""The confusion matrix of one engine as a heat map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeseg.benchmark.document import EngineAccuracy
from edgeseg.metrics import ConfusionMatrix

MAX_CLASSES = 24
"""Larger matrices are not shown, only their most frequent confusions."""


@dataclass(frozen=True)
class HeatCell:
    """Per cent of the row as text, empty where it rounds to nothing, and the shade, 0…100."""

    text: str
    shade: int


@dataclass(frozen=True)
class HeatRow:
    """A true class: its share of all labelled pixels, its IoU, and what it was predicted as."""

    name: str
    pixels: str
    iou: str
    cells: tuple[HeatCell, ...]


def heat_map(entry: EngineAccuracy | None) -> list[HeatRow]:
    """The rows of the matrix; empty where there is none, or it is too large to be read."""
    confusion = confusion_of(entry)
    if entry is None or confusion is None or len(entry.classes) > MAX_CLASSES:
        return []
    totals = confusion.matrix.sum(axis=1)
    rows = []
    for place, name in enumerate(entry.classes):
        shares = confusion.matrix[place] / max(int(totals[place]), 1)
        rows.append(
            HeatRow(
                name,
                f"{100 * totals[place] / max(int(totals.sum()), 1):.1f}",
                _percent(float(confusion.per_class_iou[place])),
                tuple(_cell(float(share), known=bool(totals[place])) for share in shares),
            )
        )
    return rows


def confusions(entry: EngineAccuracy | None, count: int = 5) -> list[str]:
    """``12.3 % of all errors: car predicted as bus`` for the most frequent ones."""
    confusion = confusion_of(entry)
    if entry is None or confusion is None:
        return []
    wrong = confusion.matrix.copy()
    np.fill_diagonal(wrong, 0)
    total = int(wrong.sum())
    first = np.argsort(wrong, axis=None, kind="stable")[::-1][:count]
    pairs = [divmod(int(place), confusion.num_classes) for place in first]
    return [
        f"{100 * wrong[true, predicted] / total:.1f} % of all errors: "
        f"{entry.classes[true]} predicted as {entry.classes[predicted]}"
        for true, predicted in pairs
        if wrong[true, predicted]
    ]


def confusion_of(entry: EngineAccuracy | None) -> ConfusionMatrix | None:
    """The counts, None where the document has none."""
    if entry is None or not entry.confusion:
        return None
    confusion = ConfusionMatrix(len(entry.classes))
    confusion.matrix += np.array(entry.confusion, np.int64)
    return confusion


def _cell(share: float, *, known: bool) -> HeatCell:
    text = f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.1f}"
    return HeatCell(text if known and share >= 0.005 else "", round(100 * share))


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"
