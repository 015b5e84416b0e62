"""Ctrl-C: what is whole by then is kept, and the document says that it was cut short."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.benchmark.document import read_bench
from edgeseg.benchmark.measure import bench
from edgeseg.data.folders import read_split
from edgeseg.errors import UsageError
from edgeseg.options.benchmark import BenchConfig

FRAMES = [np.zeros((48, 64, 3), np.uint8)]
# A block this short is one uncounted call and three counted ones; the warm-up is two windows of 5.
SHORT = BenchConfig(
    seconds=1e-6,
    rounds=4,
    min_block_seconds=1e-6,
    stable_within=1e9,
    max_other_load=1e9,
    cold_starts=0,
)


def test_an_interruption_keeps_the_blocks_before_it(make_counting: Any) -> None:
    warm_up, a_block = 5, 4
    quick, cut = (
        make_counting("quick"),
        make_counting("cut", interrupt_at=warm_up + 2 * a_block + 2),
    )
    report = bench([quick, cut], images=FRAMES, config=SHORT)
    assert report.cut_short
    assert report.notes[0].startswith("The run was interrupted")
    one, other = report.runs
    assert len(other.block_series) == 2
    assert other.calls == 6
    assert len(one.block_series) in (2, 3)
    assert other.latency_interval_ms is not None
    assert one.pixel_agreement is None
    assert read_bench(json.loads(report.to_json()), "cut.json") == report


def test_an_engine_not_reached_is_listed_without_figures(make_counting: Any) -> None:
    quick, cut = make_counting("quick"), make_counting("cut", interrupt_at=3)
    report = bench([quick, cut], images=FRAMES, config=SHORT)
    assert report.cut_short
    assert [(run.runs_here, run.reason) for run in report.runs] == [
        (False, "interrupted before it")
    ] * 2


def test_an_interruption_while_scoring_keeps_the_timing(make_counting: Any, nuclei: Path) -> None:
    split = read_split(nuclei, "val")
    split = replace(split, samples=split.samples[:3])
    timed = 5 + 4 * SHORT.rounds
    cut = make_counting("cut", interrupt_at=timed + 2)
    report = bench([cut], data=split, config=SHORT)
    (run,) = report.runs
    assert report.cut_short
    assert run.blocks == SHORT.rounds
    assert run.mean_iou is None
    assert report.accuracy == ()


def test_a_whole_run_is_not_cut_short(make_counting: Any) -> None:
    report = bench([make_counting("quick")], images=FRAMES, config=SHORT)
    assert not report.cut_short
    assert not any("interrupted" in note for note in report.notes)


@pytest.mark.parametrize("change", [{"confidence": 1.0}, {"confidence": 0.0}, {"resamples": -1}])
def test_an_interval_needs_sense(change: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="confidence"):
        replace(SHORT, **change)  # type: ignore[arg-type]
