"""Reduce the precision of ONNX networks, and compare the result with FP32.

Nothing here imports torch: precision is decided on the machine that builds the engine, and
that is often not the one that trained.
"""

from __future__ import annotations

from edgeseg.errors import needed

with needed("changing the precision of a network needs", "build"):
    import onnx as _onnx  # noqa: F401
