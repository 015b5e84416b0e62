"""The share of a calibration set that each class covers, if its pictures have labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeseg.data.folders import SPLITS, read_split
from edgeseg.data.sample import load_sample
from edgeseg.errors import ArtifactError, UsageError

logger = logging.getLogger(__name__)


def class_shares(pictures: Sequence[Path]) -> dict[str, float] | None:
    """Share of the labelled pixels that belongs to each class.

    Labels are found if the pictures lie in ``…/images/`` with ``masks/`` or ``instances/``
    beside it. Unreadable labels only cause a warning.

    Returns:
        Fraction of 1 by class name, in the order of the classes; None without labels.
    """
    folders = {picture.parent.resolve() for picture in pictures}
    folder = folders.pop().parent
    if folders or not any((folder / part).is_dir() for part in ("masks", "instances")):
        return None
    root, name = (folder.parent, folder.name) if folder.name in SPLITS else (folder, "")
    try:
        return _count(root, name, {picture.resolve() for picture in pictures})
    except (ArtifactError, UsageError) as error:
        logger.warning("the classes of the calibration set were not counted: %s", error)
        return None


def _count(root: Path, name: str, pictures: set[Path]) -> dict[str, float] | None:
    split = read_split(root, name)
    counts = np.zeros(256, np.int64)
    for sample in split:
        if sample.image.resolve() in pictures:
            _, mask = load_sample(sample, split.classes)
            counts += np.bincount(mask.ravel(), minlength=256)
    counts = counts[: len(split.classes)]
    if not counts.any():
        return None
    shares = (counts / counts.sum()).round(6).tolist()
    return dict(zip(split.classes.names, shares, strict=True))
