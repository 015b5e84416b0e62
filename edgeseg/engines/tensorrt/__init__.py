"""TensorRT 8.6 … 11 and TensorRT-RTX: one code path that probes for what a version has."""

from __future__ import annotations

from edgeseg.engines.tensorrt.build import Plan, build_engine
from edgeseg.engines.tensorrt.layers import Layer, LayerTable
from edgeseg.engines.tensorrt.library import PlanRuntime, library, tensorrt, tensorrt_rtx
from edgeseg.engines.tensorrt.settings import implicit_only
from edgeseg.engines.tensorrt.weak_typing import Implicit
from edgeseg.options.building import PlanOptions

__all__ = [
    "Implicit",
    "Layer",
    "LayerTable",
    "Plan",
    "PlanOptions",
    "PlanRuntime",
    "build_engine",
    "implicit_only",
    "library",
    "tensorrt",
    "tensorrt_rtx",
]
