"""Objects → classes: what a network that knows classes alone can learn of single objects.

Connected components of the object class are the objects that such a network finds. Two objects
that touch are one component, unless something is learnt between them: a gap of background, as in
the U-Net paper, or a class of its own for their boundary.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.card import ClassMap, default_palette
from edgeseg.errors import UsageError

BOUNDARY = "boundary"
"""Name of the third class that :func:`with_boundary` adds."""

Touching = Literal["merged", "gap", "boundary"]
"""``merged``: objects that touch are one area. ``gap``: background between them. ``boundary``:
a class of its own around every object."""

_NEIGHBOURS = np.ones((3, 3), np.uint8)


def with_boundary(classes: ClassMap) -> ClassMap:
    """The classes of background and object with ``boundary`` behind them.

    Raises:
        UsageError: They are not two, or the new id is their ignore value.
    """
    if has_boundary(classes):
        return classes
    if len(classes) != 2 or classes.ignore == 2:
        raise UsageError(
            f"a boundary class goes with background and one object class, found "
            f"{', '.join(classes.names)} with {classes.ignore} for pixels to ignore",
            mend="learn such masks with touching objects merged",
        )
    colour = next(colour for colour in default_palette(4)[2:] if colour not in classes.palette)
    return ClassMap(
        names=(*classes.names, BOUNDARY),
        palette=(*classes.palette, colour),
        ignore=classes.ignore,
    )


def has_boundary(classes: ClassMap) -> bool:
    """Whether these are background, one object class and its boundary."""
    return len(classes) == 3 and classes.names[-1] == BOUNDARY


def class_mask(
    instances: NDArray[np.integer], classes: ClassMap, touching: Touching = "merged"
) -> NDArray[np.uint8]:
    """The mask of classes that a map of objects stands for.

    Objects are class 1. Neighbours of a pixel are the eight around it; beyond the edge of the
    picture there is nothing to adjoin. With ``gap``, pixels of an object with a neighbour of
    another object become background: two pixels between any two objects, one on each side. Where
    ``classes`` has a boundary class, pixels of an object with a neighbour that is not of it,
    background included, are class 2: one pixel wide. Either way the components of class 1 never
    join two objects; an object of one or two pixels' width may leave no pixel of it.

    Args:
        instances: Integers (H, W), one id an object, 0 is the background.
        classes: What the network will know.
        touching: How to part objects. A boundary class in ``classes`` counts whatever it says.

    Returns:
        uint8 (H, W) of 0, 1 and, with a boundary class, 2.

    Raises:
        UsageError: ``touching`` is ``boundary`` and ``classes`` has no such class.
    """
    if touching == BOUNDARY and not has_boundary(classes):
        raise UsageError(
            f"touching={touching!r} needs a third class {BOUNDARY!r}, found "
            f"{', '.join(classes.names)}",
            mend="take edgeseg.data.instances.with_boundary(classes)",
        )
    ids = instances.astype(np.float64)  # holds every id exactly, and OpenCV has no int32 erosion
    objects = ids > 0
    if touching == "gap":
        lowest = cv2.erode(np.where(objects, ids, np.inf), _NEIGHBOURS)
        ids[objects & ((cv2.dilate(ids, _NEIGHBOURS) != ids) | (lowest != ids))] = 0
        objects = ids > 0
    mask = objects.astype(np.uint8)
    if has_boundary(classes):
        uniform = cv2.dilate(ids, _NEIGHBOURS) == cv2.erode(ids, _NEIGHBOURS)
        mask[objects & ~uniform] = 2
    return mask
