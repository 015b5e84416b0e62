"""Make a runtime's graph from the FP32 network, and compare it with FP32."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts.documents import plural
from edgeseg.artifacts.sidecar import GateResult
from edgeseg.building.evidence import Evidence, gate_pictures, overflow_pictures, read_evidence
from edgeseg.building.foreign import adopt
from edgeseg.building.fp32 import Fp32Network, artifact_name
from edgeseg.building.graph import RuntimeGraph
from edgeseg.building.recipe import PrecisionRecipe, read_recipe
from edgeseg.building.result import BuiltFile
from edgeseg.building.trials import Trials
from edgeseg.console import Track
from edgeseg.data.folders import Split
from edgeseg.engines import open_engine
from edgeseg.errors import RuntimeMissing, UsageError
from edgeseg.options.base import words
from edgeseg.options.building import BuildConfig
from edgeseg.precision.gate import Advice, enforce
from edgeseg.precision.mixed import Search, Trial, fewest_kept
from edgeseg.precision.overflow import require_finite
from edgeseg.precision.policy import GraphFormat
from edgeseg.precision.ranges import Ranges
from edgeseg.precision.sensitivity import LayerCost

logger = logging.getLogger(__name__)

QUICK = 8
"""Pictures on which the layers of a rejected graph are compared."""

THOROUGH = 16
"""Pictures on which ``--auto-mixed`` orders the layers."""


@dataclass(frozen=True)
class ReducedGraph:
    """A graph that passed the gate, and its file; ``ranges`` is None without calibration."""

    graph: RuntimeGraph
    built: BuiltFile
    ranges: Ranges | None
    plot: Path | None = None


def reduce_precision(
    network: Fp32Network,
    config: BuildConfig,
    graph_format: GraphFormat,
    temporary: Path,
    track: Track,
) -> ReducedGraph:
    """Write the graph to ``temporary`` and judge it; for OpenVINO this includes FP32."""
    evidence = read_evidence(network, config)
    pictures = gate_pictures(config, evidence)
    reduction = _Reduction(network, config, temporary, track, evidence, pictures)
    if config.foreign is not None:
        return reduction.judged(adopt(network, config.foreign, config.precision, graph_format))
    recipe = read_recipe(network, config, graph_format, evidence, track)
    if config.precision == "fp32":
        return reduction.judged(recipe.graph())
    return (
        reduction.mixed(recipe) if config.auto_mixed else reduction.judged(recipe.graph(), recipe)
    )


@dataclass(frozen=True)
class _Reduction:
    """One build: its network, configuration and pictures."""

    network: Fp32Network
    config: BuildConfig
    temporary: Path
    track: Track
    evidence: Evidence
    pictures: Split | Sequence[Path]

    def judged(self, graph: RuntimeGraph, recipe: PrecisionRecipe | None = None) -> ReducedGraph:
        """Write and judge; an error names the layers of ``recipe`` that cost most."""
        path = graph.write(self.temporary)
        self._require_finite(graph)
        if not len(self.pictures):
            logger.warning(
                "the accuracy of %s was NOT compared with FP32: no pictures; "
                "give labelled ones with --data, or calibrate first",
                graph.name,
            )
            return self._complete(graph, path, None)
        advice = Advice(precision=graph.precision)
        with self._trials() as trials:
            gate = trials.judge(path, graph.sidecar)
            if not gate.passed and recipe is not None:
                logger.info("%s fails the gate; looking for the layers that cost most", graph.name)
                ranker = trials.ranker(recipe, trials.probe(QUICK))
                costs = ranker.suspects()
                again = ["edgeseg", "build", str(self.config.onnx), f"--{self.config.precision}"]
                command = shlex.join([*again, *words(self.config)])
                unmeasured = len(ranker.layers) - len(costs)
                advice = Advice(costs, command, graph.precision, unmeasured)
        enforce(gate, path, advice)
        return self._complete(graph, path, gate)

    def mixed(self, recipe: PrecisionRecipe) -> ReducedGraph:
        """Keep the fewest layers with which the gate passes."""
        if not len(self.pictures):
            raise UsageError(
                "--auto-mixed asks the gate, and there are no pictures for it",
                hint="give labelled ones with --data, or calibrate first",
            )
        costs: tuple[LayerCost, ...] = ()
        with self._trials() as trials:
            whole = trials.attempt(recipe, ())
            if whole.gate.passed:
                search = Search((whole,), whole)
            else:
                costs = trials.ranker(recipe, trials.probe(THOROUGH)).every_layer()
                search = fewest_kept(
                    [cost.layer for cost in costs],
                    lambda kept: trials.attempt(recipe, kept) if kept else whole,
                )
        if search.chosen is None:
            best = max(search.trials, key=lambda trial: (-trial.gate.drop, -len(trial.kept)))
            advice = Advice(costs, precision=recipe.precision)
            enforce(best.gate, self.temporary / recipe.name, advice)
        assert search.chosen is not None  # enforce() raises where none passed.
        plot = self._plot(recipe, search, search.chosen)
        graph = recipe.graph(search.chosen.kept)
        path = graph.write(self.temporary)
        self._require_finite(graph)
        return self._complete(graph, path, search.chosen.gate, plot)

    def _trials(self) -> Trials:
        return Trials(self.network, self.config, self.pictures, self.temporary, self.track)

    def _complete(
        self, graph: RuntimeGraph, path: Path, gate: GateResult | None, plot: Path | None = None
    ) -> ReducedGraph:
        facts: dict[str, object] = {"gate": gate}
        if graph.sidecar.runtime == "openvino":
            # Run it once: OpenVINO chooses the precision of its floating-point layers.
            with open_engine(path, self.config.threads, sidecar=graph.sidecar) as engine:
                engine.warm_up(1)
                facts["computes_in"] = engine.computes_in
            logger.info(
                "OpenVINO computes the floating-point layers of %s in %s here",
                *(graph.name, engine.computes_in),
            )
        built = BuiltFile(path, graph.sidecar.model_copy(update=facts))
        return ReducedGraph(graph, built, self.evidence.ranges, plot)

    def _plot(self, recipe: PrecisionRecipe, search: Search, chosen: Trial) -> Path | None:
        """Log the choice and draw the trade-off; None without matplotlib."""
        logger.info(
            "%d of the layers stay in FP32 after %s%s; %.1f %% of the multiply-accumulates "
            "are in %s",
            len(chosen.kept),
            plural(len(search.trials), "trial"),
            f" ({', '.join(chosen.kept)})" if chosen.kept else "",
            100 * chosen.macs_share,
            recipe.precision.upper(),
        )
        try:
            from edgeseg.precision.plots import save_trade_off
        except RuntimeMissing as error:
            logger.warning("the trade-off is not drawn: %s (%s)", error, error.hint)
            return None
        plot = self.temporary / artifact_name(self.network.path, recipe.precision, "mixed", "png")
        save_trade_off(plot, search.trials, chosen, precision=recipe.precision)
        return plot

    def _require_finite(self, graph: RuntimeGraph) -> None:
        if graph.precision == "fp16":
            require_finite(
                graph.model,
                self.network.card.input,
                overflow_pictures(self.config, self.evidence),
                origin=graph.name,
                track=self.track,
            )
