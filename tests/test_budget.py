"""What is recommended for a budget, on benchmarks whose best engine is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_compare import MACHINE, accuracy

from edgeseg.benchmark.budget import Recommendation, parse_budget, recommend
from edgeseg.benchmark.document import BenchConfig, BenchReport, Network, Run
from edgeseg.errors import UsageError
from edgeseg.machine import Gpu


def row(engine: str, upper: float | None, iou: float | None, **more: Any) -> Run:
    given: dict[str, Any] = {
        "engine": engine,
        "name": "nuclei",
        "runtime": "onnxruntime",
        "precision": "fp32",
        "bytes": 2**20,
        "batch": 1,
        "threads": 2,
        "network": Network(arch="unet-lite", options={"width": 16}, size=(256, 128)),
        "latency_ms": {"p50": (upper or 1) * 0.8, "p95": (upper or 1) * 0.9},
        "latency_interval_ms": {"p95": (upper * 0.85, upper)} if upper else None,
        "mean_iou": iou,
    }
    return Run(**given | more)


def report(*runs: Run, **more: Any) -> BenchReport:
    given: dict[str, Any] = {
        "machine": MACHINE,
        "config": BenchConfig(),
        "reference": None,
        "pictures": 4,
        "labelled": 4,
        "notes": (),
        "runs": runs,
    }
    return BenchReport(**given | more)


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
    assert found.why == (
        "nuclei at 256x128, FP32 in onnxruntime: the most accurate of 2 that fit; "
        "p95 is at most 14 ms, 1 ms to spare."
    )
    assert names(found.runners_up) == ["quick.onnx"]
    why = {one.engine: one.why for one in found.refused}
    assert why == {
        "slow.onnx": "p95 is at most 20 ms, 5 ms over the budget",
        "unscored.onnx": "p95 is at most 4 ms, but it was not scored on labelled pictures",
        "four.onnx": "takes 4 pictures per call, but a budget is per frame",
        "short.onnx": "its p95 has no interval: too few blocks were measured",
    }


def test_the_end_of_the_interval_decides_and_not_the_percentile() -> None:
    # p95 is 13.95 ms, its interval reaches to 15.5 ms.
    doubtful = report(row("a.onnx", 15.5, 0.9), row("b.onnx", 9.0, 0.7))
    found = recommend(doubtful, "15ms")
    assert found.chosen is not None
    assert found.chosen.engine == "b.onnx"
    found = recommend(doubtful, "64fps")  # 15.625 ms
    assert found.chosen is not None
    assert (found.chosen.engine, found.budget_ms) == ("a.onnx", 15.625)


def test_of_equally_accurate_ones_the_faster_is_taken() -> None:
    found = recommend(report(row("a.onnx", 9.0, 0.8), row("b.onnx", 8.0, 0.8)), "15ms")
    assert found.chosen is not None
    assert found.chosen.engine == "b.onnx"


def test_where_none_fits_it_says_by_how_much_and_what_to_try() -> None:
    found = recommend(report(row("a.onnx", 30.0, 0.9), row("b.onnx", 20.0, 0.8)), "15ms")
    assert found.chosen is None
    assert found.runners_up == ()
    assert "None of 2 fits: the nearest is nuclei at 256x128, FP32 in onnxruntime" in found.why
    assert "p95 is at most 20 ms, 5 ms over the budget" in found.why
    advice = " ".join(found.advice)
    for word in ("INT8", "--runtime openvino", "smaller size than 256x128", "than width 16"):
        assert word in advice
    assert "thread" not in advice  # Both cores were used.


def test_what_was_measured_is_not_advised_again() -> None:
    int8 = row("a.onnx", 30.0, 0.9, precision="int8", runtime="openvino", threads=1)
    advice = " ".join(recommend(report(int8), "15ms").advice)
    assert "INT8:" not in advice
    assert "OpenVINO" not in advice
    assert "--threads 2" in advice
    gpu = MACHINE.__class__(**MACHINE.to_dict() | {"gpus": (Gpu("NVIDIA Orin"),)})
    assert "TensorRT on this GPU" in " ".join(recommend(report(int8, machine=gpu), "1ms").advice)


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


def test_a_noisy_run_is_doubted() -> None:
    found = recommend(report(row("a.onnx", 9.0, 0.9), noisy=True), "15ms")
    assert "noisy" in found.advice[-1]


def test_without_accuracy_there_is_nothing_to_choose_by() -> None:
    with pytest.raises(UsageError, match="none was scored"):
        recommend(report(row("a.onnx", 9.0, None)), "15ms")
    with pytest.raises(UsageError, match="none was scored"):
        recommend(report(), "15ms")


def test_the_document_reads_back() -> None:
    found = recommend(report(row("a.onnx", 9.0, 0.9), row("b.onnx", 90.0, 0.9)), "15ms")
    assert Recommendation.model_validate_json(found.to_json()) == found
