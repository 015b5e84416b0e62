"""How a data set lies on disk: its splits, and which files of a split belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeseg.card import ClassMap
from edgeseg.data.sample import Sample
from edgeseg.errors import DatasetError


@dataclass(frozen=True)
class Pairing:
    """The pictures of a split that have labels, sorted, and what does not fit together."""

    samples: tuple[Sample, ...]
    faults: tuple[DatasetError, ...] = ()


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
