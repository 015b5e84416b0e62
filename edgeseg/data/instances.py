"""Convert object maps to class masks, so that a semantic network can learn single objects.

Such a network finds objects as connected components of the object class. Touching objects form one
component unless it learns a separator: a gap of background, as in the U-Net paper, or a boundary
class.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import BOUNDARY, ClassMap, default_palette
from edgeseg.errors import UsageError
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
        classes: Classes of the network.
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
