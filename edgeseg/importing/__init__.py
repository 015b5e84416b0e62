"""Import segmentation networks made elsewhere: ONNX of other tools → ``model.onnx`` with a card.

The result takes float32 pictures (1, C, height, width) and gives uint8 labels (1, height, width),
as the networks of this package do, so that no code around the network runs per frame. The wrapped
graph is compared with the original on pictures before it is written.
"""

from __future__ import annotations

from edgeseg.importing.command import Imported, import_network
from edgeseg.options.importing import ImportConfig

__all__ = ["ImportConfig", "Imported", "import_network"]
