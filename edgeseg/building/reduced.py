"""Make a runtime's graph from the FP32 network, and compare it with FP32."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.sidecar import GateResult, sidecar_path
from edgeseg.building.command import again
from edgeseg.building.evidence import Evidence, gather, judges, pictures_for_overflow
from edgeseg.building.foreign import adopt
from edgeseg.building.recipe import (
    Candidate,
    Form,
    Recipe,
    read_recipe,
    require_precision,
    write_candidate,
)
from edgeseg.building.source import Source
from edgeseg.building.trials import Trials
from edgeseg.console import Track
from edgeseg.data.folders import Split
from edgeseg.errors import RuntimeMissing, UsageError
from edgeseg.options.building import BuildConfig
from edgeseg.precision.gate import Advice, enforce
from edgeseg.precision.mixed import Search, Trial, fewest_kept
from edgeseg.precision.overflow import require_finite
from edgeseg.precision.sensitivity import LayerCost

__all__ = ["reduced_graph", "require_precision"]

logger = logging.getLogger(__name__)

QUICK = 8
"""Pictures on which the layers of a rejected candidate are compared."""

THOROUGH = 16
"""Pictures on which ``--auto-mixed`` orders the layers."""


def reduced_graph(
    source: Source, config: BuildConfig, form: Form, shop: Path, track: Track
) -> Path:
    """Write the gated graph and its side-car to ``shop``; for OpenVINO this includes FP32."""
    evidence = gather(source, config)
    build = _Reduction(source, config, shop, track, evidence, judges(config, evidence))
    if config.foreign is not None:
        return build.judged(adopt(source, config.foreign, config.precision, form))
    recipe = read_recipe(source, config, form, evidence, track)
    if config.precision == "fp32":
        return build.judged(recipe.candidate())
    if config.auto_mixed:
        return build.mixed(recipe)
    return build.judged(recipe.candidate(), recipe)


@dataclass(frozen=True)
class _Reduction:
    """One build: its network, configuration and pictures."""

    source: Source
    config: BuildConfig
    shop: Path
    track: Track
    evidence: Evidence
    pictures: Split | Sequence[Path]

    def judged(self, candidate: Candidate, recipe: Recipe | None = None) -> Path:
        """Write and judge; an error names the layers of ``recipe`` that cost most."""
        path = write_candidate(candidate, self.source, self.shop)
        self._require_finite(candidate)
        if not len(self.pictures):
            logger.warning(
                "the accuracy of %s was NOT compared with FP32: no pictures; "
                "give labelled ones with --data, or calibrate first",
                path.name,
            )
            return path
        with Trials(self.source, self.config, self.pictures, self.shop, self.track) as trials:
            gate = trials.judge(path)
            if not gate.passed and recipe is not None:
                enforce(gate, path, self._advice(recipe, trials.rank(recipe, trials.probe(QUICK))))
        enforce(gate, path, Advice(precision=candidate.precision))
        return _with_gate(path, gate)

    def mixed(self, recipe: Recipe) -> Path:
        """Keep the fewest layers with which the gate passes."""
        if not len(self.pictures):
            raise UsageError(
                "--auto-mixed asks the gate, and there are no pictures for it",
                hint="give labelled ones with --data, or calibrate first",
            )
        with Trials(self.source, self.config, self.pictures, self.shop, self.track) as trials:
            whole = trials.attempt(recipe, ())
            costs: tuple[LayerCost, ...] = ()
            if whole.gate.passed:
                search = Search((whole,), whole)
            else:
                costs = trials.rank(recipe, trials.probe(THOROUGH))
                search = fewest_kept(
                    [cost.layer for cost in costs],
                    lambda kept: trials.attempt(recipe, kept) if kept else whole,
                )
        if search.chosen is None:
            best = max(search.trials, key=lambda trial: (-trial.gate.drop, -len(trial.kept)))
            advice = Advice(costs, precision=recipe.precision)
            enforce(best.gate, self.shop / recipe.name, advice)
        assert search.chosen is not None  # enforce() raises where none passed.
        self._tell(recipe, search, search.chosen)
        candidate = recipe.candidate(search.chosen.kept)
        path = write_candidate(candidate, self.source, self.shop)
        self._require_finite(candidate)
        return _with_gate(path, search.chosen.gate)

    def _tell(self, recipe: Recipe, search: Search, chosen: Trial) -> None:
        logger.info(
            "%d of the layers stay in FP32 after %d trials%s; %.1f %% of the multiply-accumulates "
            "are in %s",
            len(chosen.kept),
            len(search.trials),
            f" ({', '.join(chosen.kept)})" if chosen.kept else "",
            100 * chosen.macs_share,
            recipe.precision.upper(),
        )
        try:
            from edgeseg.report.precision import save_trade_off
        except RuntimeMissing as error:
            logger.warning("the trade-off is not drawn: %s (%s)", error, error.hint)
            return
        plot = self.shop / self.source.named(recipe.precision, "mixed", "png")
        save_trade_off(plot, search.trials, chosen, precision=recipe.precision)

    def _advice(self, recipe: Recipe, costs: tuple[LayerCost, ...]) -> Advice:
        return Advice(costs, again(self.config), recipe.precision)

    def _require_finite(self, candidate: Candidate) -> None:
        if candidate.precision == "fp16":
            require_finite(
                candidate.model,
                self.source.card.input,
                pictures_for_overflow(self.config, self.evidence),
                origin=candidate.name,
                track=self.track,
            )


def _with_gate(path: Path, gate: GateResult) -> Path:
    made = sidecars.read(path)
    assert made is not None  # It was written just now.
    made.model_copy(update={"gate": gate}).save(sidecar_path(path))
    return path
