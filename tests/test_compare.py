"""Comparing benchmarks: planted differences are found, chance is not, unlike runs are named."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from benchmarks import bench_of, plain_run

from edgeseg.benchmark.compare import compare, match
from edgeseg.benchmark.comparison import Comparison, FigureChange
from edgeseg.benchmark.document import (
    BenchReport,
    BlockSeries,
    DataSummary,
    EngineAccuracy,
    PictureScore,
    Run,
)
from edgeseg.errors import UsageError
from edgeseg.machine import Machine
from edgeseg.options.benchmark import BenchConfig, CompareConfig

MACHINE = Machine(
    cpu="AMD EPYC 9R14",
    cores=2,
    usable_cores=2.0,
    cpu_flags=("avx2",),
    memory_mib=24105,
    architecture="x86_64",
    os="Debian GNU/Linux 12",
    kernel="6.18",
    versions={"edgeseg": "0.1", "onnxruntime": "1.31.0"},
)
DATA = DataSummary(name="nuclei", split="val", sha256="0" * 64)
QUICK = CompareConfig(resamples=400)
NOISE = np.random.default_rng(0)


def row(medians: Sequence[float], engine: str = "runs/n/model.onnx", **more: Any) -> Run:
    middle = float(np.median(medians))
    series = tuple(
        BlockSeries(round=place, calls=20, median_ms=float(m), mean_ms=float(m))
        for place, m in enumerate(medians)
    )
    given: dict[str, Any] = {
        "latency_ms": {"p50": middle},
        "peak_rss_mib": 100.0,
        "block_series": series,
    }
    return plain_run(engine, **given | more)


def blocks(middle: float = 10.0, spread: float = 0.02, count: int = 12) -> list[float]:
    return [float(m) for m in middle * NOISE.lognormal(0, spread, count)]


def accuracy(
    hits: np.ndarray, unions: np.ndarray, engine: str = "runs/n/model.onnx"
) -> EngineAccuracy:
    pictures = tuple(
        PictureScore(
            name=f"images/{place}.png",
            iou=None,
            hits=tuple(int(v) for v in hit),
            unions=tuple(int(v) for v in union),
        )
        for place, (hit, union) in enumerate(zip(hits, unions, strict=True))
    )
    return EngineAccuracy(engine=engine, classes=("background", "nucleus"), pictures=pictures)


def report(*runs: Run, **more: Any) -> BenchReport:
    given: dict[str, Any] = {"machine": MACHINE, "data": DATA}
    return bench_of(*runs, **given | more)


def latency(comparison: Comparison, place: int = 0) -> FigureChange:
    change = comparison.rows[place].of("latency")
    assert change is not None
    return change


@pytest.mark.parametrize(
    ("factor", "word"), [(1.15, "slower"), (0.85, "faster"), (1.0, "same")], ids=str
)
def test_a_planted_difference_of_latency_is_found(factor: float, word: str) -> None:
    steady = [10 + place / 1000 for place in range(12)]
    found = compare(report(row(steady)), report(row([m * factor for m in steady])), QUICK)
    change = latency(found)
    assert change.word == word
    assert change.change == pytest.approx(factor)
    assert change.interval is not None
    assert change.interval[0] <= factor <= change.interval[1]
    assert change.before == pytest.approx(10.0055)
    assert bool(found.regressions()) == (word == "slower")


def test_a_difference_that_the_number_of_rows_explains_is_inconclusive() -> None:
    """Four blocks against four: p = 2/70 alone, and by Holm twice that beside another row."""
    before, after = ([m, m + 0.01, m + 0.02, m + 0.03] for m in (10, 11.5))
    fast, slow = row(before, "a.onnx"), row(after, "a.onnx")
    alone = latency(compare(report(fast), report(slow), QUICK))
    assert (alone.word, alone.p) == ("slower", pytest.approx(2 / 70))
    still = row(before, "b.onnx")
    beside = latency(compare(report(fast, still), report(slow, still), QUICK))
    assert (beside.verdict, beside.p) == ("inconclusive", pytest.approx(4 / 70))
    assert beside.interval is not None
    assert beside.interval[0] > 1


def test_a_difference_that_is_sure_and_does_not_matter_is_the_same() -> None:
    steady = [10 + place / 10_000 for place in range(12)]
    change = latency(compare(report(row(steady)), report(row([m * 1.01 for m in steady])), QUICK))
    assert change.p is not None
    assert change.p < 0.001
    assert (change.word, change.why) == ("same", "less than 2 %")
    strict = QUICK.model_copy(update={"latency": 0.005})
    assert (
        latency(compare(report(row(steady)), report(row([m * 1.01 for m in steady])), strict)).word
        == "slower"
    )


def test_a_difference_within_the_scatter_is_not_told() -> None:
    one, two = [9.0, 10, 11, 12, 13], [9.5, 10.5, 11.5, 12.5, 13.5]
    change = latency(compare(report(row(one)), report(row(two)), QUICK))
    assert change.word == "inconclusive"
    assert "reaches beyond 2 %" in change.why


def test_a_noisy_run_is_not_judged_however_far_apart() -> None:
    quiet, loud = report(row(blocks(10))), report(row(blocks(30)), noisy=True, why=("loud",))
    for pair, which in (
        ((quiet, loud), "the second run"),
        ((loud, quiet), "the first run"),
        ((loud, loud), "the first and the second run"),
    ):
        change = latency(compare(*pair, QUICK))
        assert (change.word, change.why) == ("inconclusive", f"noisy: {which}")
        assert change.p is None
    assert compare(quiet, loud, QUICK).regressions() == []
    assert latency(compare(quiet, report(row(blocks(30))), QUICK)).word == "slower"


def test_too_few_blocks_tell_nothing() -> None:
    change = latency(compare(report(row([10.0])), report(row(blocks(30))), QUICK))
    assert change.word == "inconclusive"
    assert "too few blocks" in change.why
    # Three against three: the least p-value there is is 2/20.
    assert latency(compare(report(row([1, 2, 3])), report(row([11, 12, 13])), QUICK)).word == (
        "inconclusive"
    )


def test_blocks_that_the_run_dropped_do_not_count() -> None:
    steady = [10 + place / 1000 for place in range(12)]
    run = row([*steady, *[50.0] * 11])
    series = tuple(b.model_copy(update={"kept": b.median_ms < 50}) for b in run.block_series)
    loud = run.model_copy(update={"block_series": series})
    assert latency(compare(report(row(steady)), report(loud), QUICK)).word == "same"
    # The medians alone are the same; the interval knows better.
    assert latency(compare(report(row(steady)), report(run), QUICK)).word == "inconclusive"


def test_runs_that_do_not_differ_are_flagged_no_more_often_than_stated() -> None:
    """70 pairs of runs with twenty rows each, thresholds at zero: the statistics alone."""
    bare = CompareConfig(resamples=200, latency=0.0, level=0.05)
    wrong = 0
    for _ in range(70):
        sides = [
            report(*(row(blocks(10, 0.03), f"{number}.onnx") for number in range(20)))
            for _ in range(2)
        ]
        wrong += any(
            change.verdict in ("better", "worse")
            for compared in compare(sides[0], sides[1], bare).rows
            if (change := compared.of("latency"))
        )
    # 5 % of 70, and what chance adds to that in one of a thousand tests (binomial). Without the
    # correction for twenty rows a quarter of the pairs is flagged.
    assert wrong <= 10


def test_accuracy_is_judged_on_the_same_pictures() -> None:
    unions = NOISE.integers(300, 600, (30, 2))
    hits = (unions * NOISE.uniform(0.6, 0.95, (30, 2))).astype(int)
    base = report(row(blocks()), accuracy=(accuracy(hits, unions),))
    for factor, word in ((0.97, "less accurate"), (1.0, "same"), (1.03, "more accurate")):
        other = report(row(blocks()), accuracy=(accuracy((hits * factor).astype(int), unions),))
        change = compare(base, other, QUICK).rows[0].of("mean_iou")
        assert change is not None
        assert change.word == word
        expected = np.mean((hits * factor).astype(int).sum(0) / unions.sum(0))
        assert change.after == pytest.approx(expected)
    # Pictures differ far more from each other than by this: unpaired, nothing would be seen.
    unlike = compare(
        base, report(row(blocks()), accuracy=(accuracy(hits[:20], unions[:20]),)), QUICK
    )
    change = unlike.rows[0].of("mean_iou")
    assert change is not None
    assert (change.word, change.interval) == ("inconclusive", None)


def test_one_picture_that_went_wrong_is_no_sure_loss() -> None:
    unions = np.full((30, 2), 500)
    hits = np.full((30, 2), 450)
    worse = hits.copy()
    worse[0] = 100
    found = compare(
        report(row(blocks()), accuracy=(accuracy(hits, unions),)),
        report(row(blocks()), accuracy=(accuracy(worse, unions),)),
        QUICK,
    )
    change = found.rows[0].of("mean_iou")
    assert change is not None
    assert change.change < -0.02
    assert change.word == "inconclusive"


@pytest.mark.parametrize(
    ("metric", "field", "before", "after", "word"),
    [
        ("memory", "peak_rss_mib", 100.0, 120.0, "more memory"),
        ("memory", "peak_rss_mib", 120.0, 100.0, "less memory"),
        ("memory", "peak_rss_mib", 100.0, 104.0, "same"),
        ("size", "bytes", 1000, 2000, "larger"),
        ("size", "bytes", 2000, 1000, "smaller"),
        ("size", "bytes", 1000, 1000, "same"),
    ],
)
def test_single_figures_are_held_against_their_threshold(
    metric: Any, field: str, before: float, after: float, word: str
) -> None:
    found = compare(
        report(row(blocks(), **{field: before})), report(row(blocks(), **{field: after})), QUICK
    )
    change = found.rows[0].of(metric)
    assert change is not None
    assert (change.word, change.p) == (word, None)


def test_rows_are_matched_by_path_then_by_name_and_never_guessed() -> None:
    one = [row([1.0], "a/m.onnx"), row([1.0], "b/m.onnx"), row([1.0], "c/other.onnx")]
    two = [row([2.0], "b/m.onnx"), row([2.0], "z/m.onnx"), row([2.0], "z/other.onnx")]
    pairs, left, right = match(one, two)
    names = [(before.engine, after.engine) for before, after in pairs]
    # b by path; then one m.onnx is left on each side, so that it is clear.
    assert names == [
        ("a/m.onnx", "z/m.onnx"),
        ("b/m.onnx", "b/m.onnx"),
        ("c/other.onnx", "z/other.onnx"),
    ]
    assert left == right == []
    pairs, left, right = match(one[:2], [row([2.0], "z/m.onnx")])
    assert (pairs, len(left), len(right)) == ([], 2, 1)


@pytest.mark.parametrize(
    "change", [{"batch": 4}, {"threads": 1}, {"runtime": "openvino"}, {"precision": "int8"}]
)
def test_rows_of_other_settings_are_not_one_row(change: dict[str, Any]) -> None:
    both = compare(report(row(blocks()), row(blocks(), **change)), report(row(blocks())), QUICK)
    assert len(both.rows) == 1
    assert len(both.only_before) == 1
    with pytest.raises(UsageError, match=r"share no row.*model\.onnx, FP32"):
        compare(report(row(blocks())), report(row(blocks(), **change)), QUICK)


def test_an_engine_that_ran_once_only_is_listed() -> None:
    absent = row([1.0], "m.engine", latency_ms=None, runs_here=False, block_series=())
    ran = row(blocks(), "m.engine")
    found = compare(report(row(blocks()), ran), report(row(blocks()), absent), QUICK)
    assert found.only_before == ("nuclei: m.engine, FP32, onnxruntime, batch 1, 2 threads",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"machine": MACHINE.__class__(**MACHINE.to_dict() | {"cpu": "Cortex-A78AE"})},
            "processor: AMD EPYC 9R14, then Cortex-A78AE",
        ),
        ({"config": BenchConfig(threads=1)}, "threads asked for: 2, then 1"),
        ({"pictures": 8}, "pictures timed: 14, then 8"),
        ({"data": DATA.model_copy(update={"sha256": "1" * 64})}, "labelled pictures: other files"),
    ],
    ids=["machine", "threads", "pictures", "data"],
)
def test_runs_that_are_not_like_each_other_are_called_so(change: dict[str, Any], says: str) -> None:
    found = compare(report(row(blocks())), report(row(blocks()), **change), QUICK)
    assert not found.like_with_like
    assert says in found.differences
    assert compare(report(row(blocks())), report(row(blocks())), QUICK).like_with_like


def test_rows_that_all_moved_alike_point_to_the_machine() -> None:
    names = ("a.onnx", "b.onnx", "c.onnx")
    steady = [10 + place / 1000 for place in range(12)]
    before = report(*(row(steady, name) for name in names))
    after = report(*(row([m * 1.1 for m in steady], name) for name in names))
    assert (
        "All 3 rows are slower by nearly the same factor (1.10 to 1.10)"
        in (compare(before, after, QUICK).notes[0])
    )
    one = report(
        *(row([m * f for m in steady], n) for f, n in zip((1, 1.1, 1.1), names, strict=True))
    )
    assert compare(before, one, QUICK).notes == ()
