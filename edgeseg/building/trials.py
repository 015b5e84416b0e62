"""Temporary graphs, measured on the runtime that the engine is built for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnx import ModelProto
from typing_extensions import Self

from edgeseg.artifacts.sidecar import GateResult, sidecar_path
from edgeseg.building.recipe import Candidate, Options, Recipe, write_candidate
from edgeseg.building.source import Source
from edgeseg.console import Track
from edgeseg.data.folders import Split
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.evaluation import Evaluation, evaluate
from edgeseg.options.building import BuildConfig
from edgeseg.precision.gate import judge
from edgeseg.precision.graph import precision_report
from edgeseg.precision.mixed import Trial
from edgeseg.precision.sensitivity import LayerCost, Probe, rank_layers


class Trials:
    """Context manager that compares candidates with the FP32 engine on fixed pictures.

    Args:
        source: The FP32 network.
        config: Limits and number of threads.
        pictures: Pictures for the gate.
        shop: Folder for temporary graphs.
        track: Shows progress.
    """

    def __init__(
        self,
        source: Source,
        config: BuildConfig,
        pictures: Split | Sequence[Path],
        shop: Path,
        track: Track,
    ) -> None:
        self.source = source
        self.config = config
        self.pictures = pictures
        self.shop = shop
        self.track = track
        self._reference = open_engine(source.path, config.threads)
        self._before: Evaluation | None = None

    def judge(self, path: Path) -> GateResult:
        """Judge a graph that has a side-car."""
        if self._before is None and isinstance(self.pictures, Split):
            self._before = evaluate(self._reference, self.pictures, self.track)
        with open_engine(path, self.config.threads) as engine:
            return judge(
                self._reference,
                engine,
                self.pictures,
                limits=self.config.limits,
                before=self._before,
                track=self.track,
            )

    def attempt(self, recipe: Recipe, kept: tuple[str, ...]) -> Trial:
        """Make the network with these layers kept, and judge it."""
        candidate = recipe.candidate(kept)
        share = precision_report(candidate.model).low_precision_share
        with self._written(candidate) as path:
            return Trial(kept, share, self.judge(path))

    def probe(self, count: int) -> Probe:
        """Prepare a probe with the results of FP32 on ``count`` of the pictures."""
        return Probe(self._reference, self.source.model, self.pictures, count)

    def rank(self, recipe: Recipe, probe: Probe, *, reverse: bool = False) -> tuple[LayerCost, ...]:
        """Cost of each layer alone, the most harmful first."""
        return rank_layers(
            probe,
            recipe.layers(),
            recipe.make,
            lambda model: self.running(recipe, model),
            reverse=reverse,
            track=self.track,
        )

    @contextmanager
    def running(self, recipe: Recipe, model: ModelProto) -> Iterator[Engine]:
        """Open an engine for a graph made by ``recipe``."""
        # What an engine must know to run it as it will.
        options: Options = {"reduce_range": True} if recipe.reduce_range else {}
        candidate = Candidate(model, recipe.precision, recipe.name, options, recipe.form)
        with (
            self._written(candidate) as path,
            open_engine(path, self.config.threads) as engine,
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
    def _written(self, candidate: Candidate) -> Iterator[Path]:
        folder = self.shop / "trial"
        folder.mkdir(exist_ok=True)
        path = write_candidate(candidate, self.source, folder)
        try:
            yield path
        finally:
            path.unlink()
            sidecar_path(path).unlink()
