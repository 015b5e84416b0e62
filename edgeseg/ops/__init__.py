"""Pixels before and after the network: picture → tensor, label map → colours.

Each kernel has a NumPy/OpenCV reference; :mod:`edgeseg.ops.native` finds the C++ twin, which
gives the same bits sooner.
"""

from __future__ import annotations

from edgeseg.errors import RuntimeMissing
from edgeseg.ops.native import native_available

__all__ = ["native_available"]

try:
    import cv2 as _cv2  # noqa: F401 - only asks whether it is there
except ImportError as error:
    raise RuntimeMissing(
        f"OpenCV for Python (module cv2) cannot be imported: {error}",
        mend="pip install 'edgeseg[cpu]'; on a Jetson take JetPack's: "
        "python3 -m venv --system-site-packages VENV",
    ) from error
