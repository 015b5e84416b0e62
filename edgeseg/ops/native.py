"""Load the C++ kernels, if the extension is built.

``EDGESEG_NATIVE=0`` disables them. They use the best instruction set of the CPU;
``EDGESEG_SIMD=portable`` (or ``avx2``, ``avx512``; ``neon`` on aarch64) selects another.
"""

from __future__ import annotations

import importlib
import logging
import os
from types import ModuleType

from edgeseg.errors import UsageError

logger = logging.getLogger(__name__)

REVISION = 6
"""Version of the extension's interface, to detect outdated builds; see ``native/module.cpp``."""


def _load() -> ModuleType | None:
    if os.environ.get("EDGESEG_NATIVE") == "0":
        return None
    try:
        module = importlib.import_module("edgeseg._native")
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        logger.warning("edgeseg._native is installed but cannot be loaded: %s", error)
        return None
    if getattr(module, "REVISION", 0) != REVISION:
        logger.warning("edgeseg._native was built from other sources: run pip install again")
        return None
    level = os.environ.get("EDGESEG_SIMD")
    if level:
        _use(module, level)
    return module


def _use(module: ModuleType, level: str) -> None:
    if level not in module.levels():
        raise UsageError(
            f"EDGESEG_SIMD={level}: this CPU has {', '.join(module.levels())}",
            hint="unset EDGESEG_SIMD",
        )
    module.use(level)


kernels: ModuleType | None = _load()
"""The extension ``edgeseg._native``, None if it is missing or disabled."""


def native_available() -> bool:
    """Whether the C++ kernels are in use, rather than the NumPy/OpenCV versions."""
    return kernels is not None


def simd_level() -> str | None:
    """Return the instruction set of the C++ kernels, e.g. ``avx2``; None without kernels."""
    return None if kernels is None else str(kernels.level())
