"""How a data set lies on disk: its splits, and which files of a split belong together."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeseg.card import ClassMap
from edgeseg.data.sample import Sample
from edgeseg.errors import DatasetError


@dataclass(frozen=True)
class Pairing:
    """The files of a split.

    Attributes:
        samples: The pictures that have labels, sorted.
        faults: What does not fit together.
        passed_over: What lies beside them and is not read, and why.
    """

    samples: tuple[Sample, ...]
    faults: tuple[DatasetError, ...] = ()
    passed_over: tuple[tuple[Path, str], ...] = ()


@dataclass(frozen=True)
class Layout:
    """A data set as its folders tell it.

    Attributes:
        kind: What the layout is called.
        splits: Names of the splits; the empty name where the data set is not divided.
        pair: Name of a split → its files.
        classes: The classes that come with the layout, None where the masks or ``classes.json``
            say them.
    """

    kind: str
    splits: tuple[str, ...]
    pair: Callable[[str], Pairing]
    classes: ClassMap | None = None


def same_name(name: str) -> str:
    """``name`` in the one Unicode form in which names are compared (NFC).

    macOS and some archives spell ``é`` as ``e`` and an accent; the two look the same to anybody.
    """
    return unicodedata.normalize("NFC", name)
