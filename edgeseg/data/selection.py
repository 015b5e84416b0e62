"""Select pictures to calibrate on or to label: reject unsuitable and duplicate ones, choose a few.

:func:`describe` reduces a picture to a few kilobytes, so thousands of candidates fit into memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.duplicates import SIMILAR, fingerprint
from edgeseg.data.thumbnails import thumbnail
from edgeseg.options.building import Select

SELECTS: tuple[Select, ...] = get_args(Select)

Reason = Literal["uniform", "blurred", "similar"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Uniform (a covered lens, no signal); blurred; nearly the same as an earlier picture."""

SAME_LIGHT = 0.03
"""Root mean square of two embeddings' difference up to which the light is called the same.

A fingerprint does not see it, and day and night of one place are what ranges must know.
"""

_GRID = 8
_LONGEST = 512
"""Sharpness is compared at this size: finer detail than that reaches few networks."""

_DEVIATIONS = 3.5
_BLUR_SHARE = 0.03
"""Blurred is what lies 3.5 deviations below the median of the pool's log sharpness, the deviation
by the median of absolute ones (Iglewicz and Hoaglin, 1993), and below 3 % of the median.

The softest pictures that are not blurred lie at 14 % of it in CamVid, 9 % among the bundled nuclei
and 6 % among every second picture of the set they are from, whose stains differ; CamVid's at 0.5 %
once blurred with a sigma of 2 pixels, at 3 to 5 % with one of 1. In 500 draws each of 8, 16 and 46
pictures none was lost.
"""


@dataclass(frozen=True)
class Description:
    """Description of a candidate picture.

    Attributes:
        name: Name of the file, or number of the frame.
        brightness: Mean grey level, 0 to 255.
        sharpness: Variance of the Laplacian over the variance of the grey levels.
        fingerprint: float32 (1024,) of :mod:`edgeseg.data.duplicates`, None for a uniform one.
        embedding: float32 (192,): the picture at 8×8 in CIE Lab, white being 1.
        thumbnail: JPEG.
    """

    name: str
    brightness: float
    sharpness: float
    fingerprint: NDArray[np.float32] | None
    embedding: NDArray[np.float32]
    thumbnail: bytes


def describe(name: str, image: NDArray[np.uint8]) -> Description:
    """Describe one picture, uint8 (H, W, 3) BGR."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    tiny = cv2.resize(image, (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float32)
    lab = np.asarray(cv2.cvtColor(tiny / np.float32(255), cv2.COLOR_BGR2LAB), np.float32)
    return Description(
        name=name,
        brightness=float(grey.mean()),
        sharpness=_sharpness(np.asarray(grey, np.uint8)),
        fingerprint=fingerprint(image),
        embedding=lab.ravel() / np.float32(100),
        thumbnail=thumbnail(image),
    )


def sort_out(candidates: Sequence[Description]) -> dict[int, Reason]:
    """Indices of the candidates to reject, and why.

    The first of several near duplicates is not rejected.
    """
    out: dict[int, Reason] = {
        number: "uniform" for number, each in enumerate(candidates) if each.fingerprint is None
    }
    out |= _blurred({n: each.sharpness for n, each in enumerate(candidates) if n not in out})
    kept: list[Description] = []
    for number, candidate in enumerate(candidates):
        if number in out:
            continue
        if near_duplicates(candidate, kept):
            out[number] = "similar"
        else:
            kept.append(candidate)
    return out


def choose(select: Select, embeddings: NDArray[np.float32], count: int, seed: int = 0) -> list[int]:
    """Choose ``count`` of the pictures, or all if there are fewer; returns ascending indices.

    Args:
        select: ``k-centre`` (:func:`k_centre`), ``random``, the ``first``, or one drawn from
            each of ``count`` equal parts (``spread``).
        embeddings: float32 (N, D), in the order of the source.
    """
    total = len(embeddings)
    if total <= count or select == "first":
        return list(range(min(total, count)))
    if select == "spread":
        return spread(total, count, seed)
    if select == "random":
        return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())
    return sorted(k_centre(embeddings, count, seed))


def k_centre(embeddings: NDArray[np.float32], count: int, seed: int) -> list[int]:
    """Choose a core-set: pictures such that each of the others is near one of them.

    The first is drawn; each further one is that which lies farthest from all before it. The
    largest distance left is at most twice the least possible (Gonzalez, "Clustering to minimize
    the maximum intercluster distance", 1985; for choosing pictures: Sener and Savarese, "Active
    learning for convolutional neural networks: a core-set approach", ICLR 2018).

    Args:
        embeddings: float32 (N, D), N >= ``count``.

    Returns:
        ``count`` indices in the order of choice; any prefix is a core-set as well.
    """
    chosen = [int(np.random.default_rng(seed).integers(len(embeddings)))]
    nearest = np.full(len(embeddings), np.inf, np.float32)
    while len(chosen) < count:
        distance = np.linalg.norm(embeddings - embeddings[chosen[-1]], axis=1)
        nearest = np.minimum(nearest, distance)
        nearest[chosen[-1]] = -1  # Where all the others are equal to it, none is taken twice.
        chosen.append(int(nearest.argmax()))
    return chosen


def spread(total: int, count: int, seed: int) -> list[int]:
    """``count`` of ``total`` indices, ascending: one at random from each of ``count`` equal parts.

    Returns all indices if ``total`` <= ``count``.
    """
    if total <= count:
        return list(range(total))
    edges = np.linspace(0, total, count + 1).astype(int)
    random = np.random.default_rng(seed)
    return [int(random.integers(low, high)) for low, high in itertools.pairwise(edges)]


def near_duplicates(own: Description, others: Sequence[Description]) -> list[int]:
    """Return the indices of the pictures that are nearly the same as ``own``, in the same light.

    Uniform pictures, which have no fingerprint, must be left out before.
    """
    if not others:
        return []
    alike = np.stack([each.fingerprint for each in others if each.fingerprint is not None])
    assert own.fingerprint is not None
    assert len(alike) == len(others)
    away = np.stack([each.embedding for each in others]) - own.embedding
    same_light = np.sqrt((away**2).mean(axis=1)) <= SAME_LIGHT
    return np.flatnonzero((alike @ own.fingerprint >= SIMILAR) & same_light).tolist()


def _sharpness(grey: NDArray[np.uint8]) -> float:
    scale = _LONGEST / max(grey.shape)
    if scale < 1:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    edges = cv2.Laplacian(grey, cv2.CV_32F)
    return float(edges.var() / max(float(grey.var()), 1e-6))


def _blurred(sharpness: Mapping[int, float]) -> dict[int, Reason]:
    if not sharpness:
        return {}
    logarithms = np.log(np.maximum(list(sharpness.values()), 1e-12))
    away = logarithms - np.median(logarithms)
    deviation = 1.4826 * np.median(np.abs(away))
    blurred = (away < -_DEVIATIONS * deviation) & (away < np.log(_BLUR_SHARE))
    return {n: "blurred" for n, bad in zip(sharpness, blurred, strict=True) if bad}
