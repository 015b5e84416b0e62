"""Object maps: class masks that separate single objects, and weights of the gaps between them.

A semantic network finds objects as connected components of the object class. Touching objects form
one component unless it learns a separator: a gap of background, as in the U-Net paper, or a
boundary class.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import BOUNDARY, ClassMap, default_palette
from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.options.training import Touching

_NEIGHBOURS = np.ones((3, 3), np.uint8)


def with_boundary(classes: ClassMap) -> ClassMap:
    """Append a ``boundary`` class to background and object.

    Raises:
        UsageError: ``classes`` has not exactly two classes, or the new id is the ignore value.
    """
    if classes.has_boundary:
        return classes
    if len(classes) != 2 or classes.ignore == 2:
        raise UsageError(
            f"a boundary class goes with background and one object class, found "
            f"{', '.join(classes.names)} with {classes.ignore} for pixels to ignore",
            hint="learn such masks with touching objects merged",
        )
    others = default_palette(4, None)[1:]
    colour = next(colour for colour in others if colour not in classes.palette)
    return ClassMap(
        names=(*classes.names, BOUNDARY),
        palette=(*classes.palette, colour),
        ignore=classes.ignore,
        background=classes.background,
    )


def class_mask(
    instances: NDArray[np.integer], classes: ClassMap, touching: Touching = "merged"
) -> NDArray[np.uint8]:
    """Convert a map of object ids to a mask of class ids.

    Objects have the id ``classes.object_class``. Pixels have eight neighbours, none beyond the edge
    of the picture. With ``gap``, object pixels next to another object become background: a gap of
    two pixels, one on each side. If ``classes`` has a boundary class, object pixels next to another
    object or the background become class 2: one pixel wide. Either way no component of objects
    joins two of them, but an object one or two pixels wide may vanish.

    Args:
        instances: Object ids, integers (H, W); 0 is the background.
        touching: How to separate objects. If ``classes`` has a boundary class, it is always used.

    Returns:
        uint8 (H, W) of the object's class, the background (0 if the classes have none) and, with
        a boundary class, 2.

    Raises:
        UsageError: ``touching`` is ``boundary`` but ``classes`` has no boundary class.
    """
    if touching == BOUNDARY and not classes.has_boundary:
        raise UsageError(
            f"touching={touching!r} needs a third class {BOUNDARY!r}, found "
            f"{', '.join(classes.names)}",
            hint="take edgeseg.data.instances.with_boundary(classes)",
        )
    ids = instances.astype(np.float64)  # holds every id exactly, and OpenCV has no int32 erosion
    objects = ids > 0
    if touching == "gap":
        lowest = cv2.erode(np.where(objects, ids, np.inf), _NEIGHBOURS)
        ids[objects & ((cv2.dilate(ids, _NEIGHBOURS) != ids) | (lowest != ids))] = 0
        objects = ids > 0
    mask = np.where(objects, classes.object_class, classes.background or 0).astype(np.uint8)
    if classes.has_boundary:
        uniform = cv2.dilate(ids, _NEIGHBOURS) == cv2.erode(ids, _NEIGHBOURS)
        mask[objects & ~uniform] = 2
    return mask


_NEGLIGIBLE = 1e-6
"""Share of ``w0`` below which a weight is set to zero, so that far objects cost nothing."""


def border_weights(
    instances: NDArray[np.integer], w0: float = 10.0, sigma: float = 5.0
) -> NDArray[np.float32]:
    """Compute the weights that teach a network to separate touching objects.

    They are the second term of equation 2 of Ronneberger, Fischer and Brox, "U-Net: Convolutional
    Networks for Biomedical Image Segmentation" (2015): ``w0 * exp(-(d1 + d2)² / (2 sigma²))``.
    ``d1`` and ``d2`` are the Euclidean distances, in pixels, from a pixel of the background to
    the nearest pixel of the nearest and of the second nearest object. The term is zero on
    objects, in pictures with fewer than two objects, and where it would be below ``1e-6 * w0``.
    The first term, which balances the classes, is part of the loss.

    Args:
        instances: Object ids, integers (H, W); 0 is the background.
        w0: Maximum weight, the limit for a pixel at distance 0 from two objects.
        sigma: Width of the border in pixels, above 0; 5 in the paper.

    Returns:
        float32 (H, W) of 0…``w0``.
    """
    reach = sigma * math.sqrt(-2 * math.log(_NEGLIGIBLE))
    background = instances == 0
    nearest = np.full((2, *instances.shape), np.inf, np.float32)
    # Only pixels with d1 + d2 <= reach count, and d1 is at least 1.
    for label, window in _windows(instances, ~background, margin=max(1, int(reach - 1))):
        elsewhere = (instances[window] != label).astype(np.uint8)
        distance = cv2.distanceTransform(elsewhere, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        # The last bit differs between calls, but trainings must be reproducible; squared
        # distances between pixels are whole numbers.
        distance = np.sqrt(np.rint(np.square(distance)))
        first, second = nearest[:, window[0], window[1]]
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    total = nearest.sum(axis=0)
    between = background & (total <= reach)
    weights = np.zeros(instances.shape, np.float32)
    weights[between] = w0 * np.exp(-np.square(total[between]) / (2 * sigma**2))
    return weights


def _windows(
    instances: NDArray[np.integer], objects: NDArray[np.bool_], margin: int
) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Yield each object's id and its bounding box, enlarged by ``margin`` on all sides."""
    rows, columns = np.nonzero(objects)
    labels = instances[rows, columns]
    order = np.argsort(labels, kind="stable")
    labels, rows, columns = labels[order], rows[order], columns[order]
    starts = np.flatnonzero(np.diff(labels, prepend=0))
    if not len(starts):
        return
    tops, bottoms = (f.reduceat(rows, starts) for f in (np.minimum, np.maximum))
    lefts, rights = (f.reduceat(columns, starts) for f in (np.minimum, np.maximum))
    boxes = zip(labels[starts], tops, bottoms, lefts, rights, strict=True)
    for label, top, bottom, left, right in boxes:
        yield (
            int(label),
            (
                slice(max(0, top - margin), bottom + margin + 1),
                slice(max(0, left - margin), right + margin + 1),
            ),
        )
