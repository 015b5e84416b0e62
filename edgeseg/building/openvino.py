"""Build engines for OpenVINO: ONNX networks under names of their own, even in FP32."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.sidecar import sidecar_path
from edgeseg.artifacts.workshop import workshop
from edgeseg.building.network import refuse_plan_options
from edgeseg.building.placing import place
from edgeseg.building.reduced import reduced_graph
from edgeseg.building.result import BuildResult
from edgeseg.building.source import Source
from edgeseg.console import Track
from edgeseg.engines import open_engine
from edgeseg.engines.openvino import library
from edgeseg.options.building import BuildConfig

logger = logging.getLogger(__name__)


def build_openvino(source: Source, config: BuildConfig, track: Track) -> BuildResult:
    """Make ``model.PRECISION.openvino.onnx``, judged in OpenVINO; raises the errors of ``build``.

    The file is ONNX, which OpenVINO compiles on opening: one file with the card inside, whereas
    OpenVINO's own format takes two. INT8 has the same form as for ONNX Runtime.
    """
    refuse_plan_options(config, "OpenVINO")
    library()  # Fail early if it is missing.
    with workshop(source.path.parent) as shop:
        graph = reduced_graph(source, config, "openvino", shop, track)
        _note_what_it_computes_in(graph, config.threads)
        return place([graph], source.path.parent)


def _note_what_it_computes_in(graph: Path, threads: int | None) -> None:
    """Run the network once, and record in the side-car the precision that OpenVINO chose."""
    with open_engine(graph, threads) as engine:
        engine.warm_up(1)
        chosen = engine.computes_in
    logger.info("OpenVINO computes the floating layers of %s in %s here", graph.name, chosen)
    made = sidecars.read(graph)
    assert made is not None  # Written with the graph.
    made.model_copy(update={"computes_in": chosen}).save(sidecar_path(graph))
