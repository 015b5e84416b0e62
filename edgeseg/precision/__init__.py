"""Reduce the precision of ONNX networks, and compare the result with FP32.

Nothing here imports torch: precision is decided on the machine that builds the engine, and
that is often not the one that trained.
"""

from __future__ import annotations

from edgeseg.errors import RuntimeMissing

try:
    import onnx as _onnx  # noqa: F401
except ImportError as error:
    raise RuntimeMissing(
        "changing the precision of a network needs the onnx library, which is not installed",
        hint="pip install 'edgeseg[build]'",
    ) from error
