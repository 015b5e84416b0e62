"""What is recommended for a budget, on benchmarks whose best engine is known."""

from typing import Any

import numpy as np
import pytest
from benchmarks import bench_of, plain_run
from test_compare import MACHINE, accuracy

from edgeseg.benchmark.budget import parse_budget, recommend
from edgeseg.benchmark.document import BenchReport, NetworkSummary, Run
from edgeseg.errors import UsageError
from edgeseg.options.benchmark import BenchConfig


def row(engine: str, upper: float | None, iou: float | None, **more: Any) -> Run:
    given: dict[str, Any] = {
        "network": NetworkSummary(arch="unet-lite", options={"width": 16}, size=(256, 128)),
        "latency_ms": {"p50": (upper or 1) * 0.8, "p95": (upper or 1) * 0.9},
        "latency_interval_ms": {"p95": (upper * 0.85, upper)} if upper else None,
        "mean_iou": iou,
    }
    return plain_run(engine, **given | more)


def report(*runs: Run, **more: Any) -> BenchReport:
    given: dict[str, Any] = {"machine": MACHINE, "config": BenchConfig(), "labelled": 4}
    return bench_of(*runs, **given | more)


def names(candidates: tuple[Any, ...]) -> list[str]:
    return [one.engine for one in candidates]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("15ms", 15), ("0.5 s", 500), ("66fps", 1000 / 66), (" 20 FPS ", 50), (".5ms", 0.5)],
)
def test_budgets_are_times_or_rates(text: str, ms: float) -> None:
    assert parse_budget(text) == pytest.approx(ms)


@pytest.mark.parametrize(
    "text", ["15", "ms", "-3ms", "0fps", "0.0ms", "15 m", "1e3ms", "", "nanms"]
)
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="15ms or 66fps"):
        parse_budget(text)


def test_the_most_accurate_that_fits_is_taken_and_the_rest_explained() -> None:
    found = recommend(
        report(
            row("slow.onnx", 20.0, 0.90),
            row("good.onnx", 14.0, 0.88),
            row("quick.onnx", 5.0, 0.80),
            row("unscored.onnx", 4.0, None),
            row("four.onnx", 3.0, 0.95, batch=4),
            row("short.onnx", None, 0.95),
        ),
        "15ms",
    )
    assert found.chosen is not None
    assert found.chosen.engine == "good.onnx"
    assert names(found.runners_up) == ["quick.onnx"]
    refused = {"slow.onnx", "unscored.onnx", "four.onnx", "short.onnx"}
    assert set(names(found.refused)) == refused
    assert all(one.why for one in found.refused)


def test_the_end_of_the_interval_decides_and_not_the_percentile() -> None:
    # p95 is 13.95 ms, its interval reaches to 15.5 ms.
    doubtful = report(row("a.onnx", 15.5, 0.9), row("b.onnx", 9.0, 0.7))
    found = recommend(doubtful, "15ms")
    assert found.chosen is not None
    assert found.chosen.engine == "b.onnx"
    found = recommend(doubtful, "64fps")  # 15.625 ms
    assert found.chosen is not None
    assert (found.chosen.engine, found.budget_ms) == ("a.onnx", 15.625)


def test_a_quicker_one_that_may_be_as_accurate_is_mentioned() -> None:
    noise = np.random.default_rng(2)
    unions = noise.integers(300, 600, (30, 2))
    hits = (0.9 * unions).astype(int)
    wavering = np.clip(hits + noise.integers(-20, 20, hits.shape), 0, unions)
    scored = (
        accuracy(hits, unions, "a.onnx"),
        accuracy(wavering, unions, "b.onnx"),
        accuracy((0.5 * unions).astype(int), unions, "c.onnx"),
    )
    rows = (row("a.onnx", 14.0, 0.9), row("b.onnx", 9.0, 0.899), row("c.onnx", 2.0, 0.5))
    (advice,) = recommend(report(*rows, accuracy=scored), "15ms").advice
    assert advice.startswith(
        "b.onnx (nuclei, onnxruntime) is 4.5 ms faster at p95 and not significantly"
    )


def test_of_equally_accurate_ones_the_quicker_is_taken() -> None:
    found = recommend(report(row("a.onnx", 9.0, 0.8), row("b.onnx", 8.0, 0.8)), "15ms")
    assert found.chosen is not None
    assert found.chosen.engine == "b.onnx"


def test_without_accuracy_there_is_nothing_to_choose_by() -> None:
    with pytest.raises(UsageError, match="no engine was scored"):
        recommend(report(row("a.onnx", 9.0, None)), "15ms")
    with pytest.raises(UsageError, match="no engine was scored"):
        recommend(report(), "15ms")
