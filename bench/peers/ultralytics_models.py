"""Ultralytics' smallest network for semantic segmentation, in its three usual formats.

Runs in the peer's environment, from :mod:`setup`. Its trained weights are a download, so the
weights are random: milliseconds do not depend on them. It has as many classes as our network
and is exported at the size to which 1280×720 comes at 512 pixels a line.
"""

from pathlib import Path

import ultralytics
import yaml
from ultralytics import YOLO, settings

CLASSES = 11
SIZE = (288, 512)


def main() -> None:
    """Write ``yolo26n-sem.pt``, ``.onnx`` and ``_openvino_model`` into the current folder."""
    settings.update({"sync": False})
    layout = Path(ultralytics.__file__).parent / "cfg" / "models" / "26" / "yolo26-sem.yaml"
    document = yaml.safe_load(layout.read_text()) | {"nc": CLASSES}
    Path("yolo26n-sem.yaml").write_text(yaml.safe_dump(document))
    YOLO("yolo26n-sem.yaml").save("yolo26n-sem.pt")
    for kind in ("onnx", "openvino"):
        YOLO("yolo26n-sem.pt").export(format=kind, imgsz=SIZE)


if __name__ == "__main__":
    main()
