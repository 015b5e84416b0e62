"""Score a threshold on labelled pictures of two classes, as a baseline for networks.

    python bench/otsu.py [DIR]

Each picture is blurred and cut at its own threshold (Otsu 1979); of its two sides the one with
fewer pixels is the object. Scored as `edgeseg eval` scores networks.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.folders import bundled_sample, load_sample, read_split
from edgeseg.metrics import ConfusionMatrix


def threshold(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label map uint8 (H, W) of a picture uint8 (H, W, 3) BGR: 1 where the object is."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), 1.5)
    _, bright = cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(1 - bright if bright.mean() > 0.5 else bright, np.uint8)


def main() -> None:
    """Print mean IoU on the validation pictures as JSON."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else bundled_sample()
    split = read_split(root, "val")
    confusion = ConfusionMatrix(2, split.classes.ignore)
    for sample in split:
        image, mask = load_sample(sample, split.classes)
        confusion.update(mask, threshold(image))
    print(json.dumps({"pictures": len(split), "mean_iou": round(confusion.mean_iou, 4)}))


if __name__ == "__main__":
    main()
