"""Preprocessing and postprocessing kernels: picture → tensor, label map → colours.

Each kernel has a NumPy/OpenCV reference and a faster C++ version with identical results, loaded by
:mod:`edgeseg.ops.native`.
"""

from __future__ import annotations

from edgeseg.errors import RuntimeMissing
from edgeseg.ops.native import native_available

__all__ = ["native_available"]

try:
    import cv2 as _cv2  # noqa: F401 - only checks that it is installed
except ImportError as error:
    raise RuntimeMissing(
        f"OpenCV for Python (module cv2) cannot be imported: {error}",
        hint="pip install 'edgeseg[cpu]'; on a Jetson take JetPack's: "
        "python3 -m venv --system-site-packages VENV",
    ) from error
