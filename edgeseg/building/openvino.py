"""Engines of OpenVINO: ONNX networks of their own names, in FP32 too."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeseg import sidecar as sidecars
from edgeseg.building.config import BuildConfig, BuildResult
from edgeseg.building.network import refuse_plan_options
from edgeseg.building.placing import place
from edgeseg.building.reduced import reduced_graph
from edgeseg.building.source import Source
from edgeseg.console import Track
from edgeseg.engines import open_engine
from edgeseg.engines.openvino import library
from edgeseg.sidecar import sidecar_path
from edgeseg.workshop import workshop

logger = logging.getLogger(__name__)


def build_openvino(source: Source, config: BuildConfig, track: Track) -> BuildResult:
    """``model.PRECISION.openvino.onnx``, gated in OpenVINO; raises as ``build``.

    The file is ONNX, which OpenVINO compiles as it opens it: one file with the card inside,
    where its own format is two. The INT8 form is that of ONNX Runtime.
    """
    refuse_plan_options(config, "OpenVINO")
    library()  # Before the long part: it may be missing.
    with workshop(source.path.parent) as shop:
        graph = reduced_graph(source, config, "openvino", shop, track)
        _note_what_it_computes_in(graph, config.threads)
        return place([graph], source.path.parent)


def _note_what_it_computes_in(graph: Path, threads: int | None) -> None:
    """Put into the side-car what OpenVINO chose, after running it once."""
    with open_engine(graph, threads) as engine:
        engine.warm_up(1)
        chosen = engine.computes_in
    logger.info("OpenVINO computes the floating layers of %s in %s here", graph.name, chosen)
    made = sidecars.read(graph)
    assert made is not None  # Written with the graph.
    made.model_copy(update={"computes_in": chosen}).save(sidecar_path(graph))
