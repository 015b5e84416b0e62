"""The C++ twins, where the extension was built; ``EDGESEG_NATIVE=0`` leaves them out."""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType

_log = logging.getLogger(__name__)


def _load() -> ModuleType | None:
    if os.environ.get("EDGESEG_NATIVE") == "0":
        return None
    try:
        return importlib.import_module("edgeseg._native")
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        _log.warning("edgeseg._native is installed but cannot be loaded: %s", error)
        return None


kernels: ModuleType | None = _load()
"""The extension ``edgeseg._native``, None where it is absent or left out."""


def native_available() -> bool:
    """Whether the C++ kernels are in use; else NumPy and OpenCV compute the same values."""
    return kernels is not None
