"""The layout of a data set on disk: its splits and the files of each."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.card import ClassMap
from edgeseg.data.sample import Sample
from edgeseg.errors import DatasetError


@dataclass(frozen=True)
class Pairing:
    """The files of a split, paired.

    Attributes:
        samples: Labelled pictures, sorted.
        faults: Errors such as a picture without mask.
        passed_over: Files that were skipped, with reasons.
    """

    samples: tuple[Sample, ...]
    faults: tuple[DatasetError, ...] = ()
    passed_over: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Layout:
    """The layout of a data set.

    Attributes:
        kind: Name of the layout.
        splits: Names of the splits; one empty name if the data set has no splits.
        pair: Function from the name of a split to its files.
        classes: Classes that the layout defines, None if they come from masks or
            ``classes.json``.
    """

    kind: str
    splits: tuple[str, ...]
    pair: Callable[[str], Pairing]
    classes: ClassMap | None = None


def same_name(name: str) -> str:
    """Normalise a name to NFC, so that names can be compared.

    macOS and some archives store ``é`` as ``e`` plus an accent, which looks the same.
    """
    return unicodedata.normalize("NFC", name)
