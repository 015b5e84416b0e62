"""Temporary graphs, measured on the runtime that the engine is built for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnx import ModelProto
from typing_extensions import Self

from edgeseg.artifacts.sidecar import GateResult, SideCar
from edgeseg.building.fp32 import Fp32Network
from edgeseg.building.graph import BuildOptions, RuntimeGraph, runtime_graph
from edgeseg.building.recipe import PrecisionRecipe
from edgeseg.console import Track
from edgeseg.data.folders import Split
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.evaluation import Evaluation, evaluate
from edgeseg.options.building import BuildConfig
from edgeseg.precision.gate import judge
from edgeseg.precision.mixed import Trial
from edgeseg.precision.sensitivity import Probe, Ranker


class Trials:
    """Context manager that compares graphs with the FP32 engine on fixed pictures.

    Args:
        network: The FP32 network.
    """

    def __init__(
        self,
        network: Fp32Network,
        config: BuildConfig,
        pictures: Split | Sequence[Path],
        temporary: Path,
        track: Track,
    ) -> None:
        self.network = network
        self.config = config
        self.pictures = pictures
        self.temporary = temporary
        self.track = track
        self._reference = open_engine(network.path, config.threads)
        self._before: Evaluation | None = None

    def judge(self, path: Path, sidecar: SideCar) -> GateResult:
        """Judge the graph at ``path``, whose side-car is not written yet."""
        if self._before is None and isinstance(self.pictures, Split):
            self._before = evaluate(self._reference, self.pictures, self.track)
        with open_engine(path, self.config.threads, sidecar=sidecar) as engine:
            return judge(
                self._reference,
                engine,
                self.pictures,
                limits=self.config.limits,
                before=self._before,
                track=self.track,
            )

    def attempt(self, recipe: PrecisionRecipe, kept: tuple[str, ...]) -> Trial:
        """Make the network with these layers kept, and judge it."""
        graph = recipe.graph(kept)
        assert graph.sidecar.precision is not None
        with self._written(graph) as path:
            gate = self.judge(path, graph.sidecar)
        return Trial(kept, graph.sidecar.precision.low_precision_share, gate)

    def probe(self, count: int) -> Probe:
        """Prepare a probe with the results of FP32 on ``count`` of the pictures."""
        return Probe(self._reference, self.network.model, self.pictures, count)

    def ranker(self, recipe: PrecisionRecipe, probe: Probe) -> Ranker:
        """Prepare to rank the layers of ``recipe``."""
        return Ranker(
            probe,
            recipe.layers(),
            recipe.make,
            lambda model: self.running(recipe, model),
            self.track,
        )

    @contextmanager
    def running(self, recipe: PrecisionRecipe, model: ModelProto) -> Iterator[Engine]:
        """Open an engine for a graph made by ``recipe``."""
        # What an engine must know to run it as it will.
        options: BuildOptions = {"reduce_range": True} if recipe.reduce_range else {}
        graph = runtime_graph(self.network, model, recipe.precision, recipe.graph_format, options)
        with (
            self._written(graph) as path,
            open_engine(path, self.config.threads, sidecar=graph.sidecar) as engine,
        ):
            yield engine

    def close(self) -> None:
        """Close the FP32 engine."""
        self._reference.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _written(self, graph: RuntimeGraph) -> Iterator[Path]:
        folder = self.temporary / "trial"
        folder.mkdir(exist_ok=True)
        path = graph.write(folder)
        try:
            yield path
        finally:
            path.unlink()
