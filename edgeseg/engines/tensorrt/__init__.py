"""TensorRT 8.6 … 11 and TensorRT-RTX: one code path that probes for what a version has."""

from __future__ import annotations

from edgeseg.engines.tensorrt.build import Plan, build_engine
from edgeseg.engines.tensorrt.library import tensorrt_rtx
from edgeseg.engines.tensorrt.options import PlanOptions

__all__ = ["Plan", "PlanOptions", "build_engine", "tensorrt_rtx"]
