"""The page of a comparison: what changed, why, and what forbids to tell."""

import re
from pathlib import Path

import pytest
from benchmarks import rich_accuracy, rich_bench

from edgeseg.benchmark.compare import compare
from edgeseg.benchmark.comparison import Comparison
from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.options.benchmark import CompareConfig
from edgeseg.report.differences import lead, write_comparison

QUICK = CompareConfig(resamples=200)


def moved(run: Run, factor: float) -> Run:
    """The same run, slower by ``factor``."""
    blocks = (b.model_copy(update={"median_ms": factor * b.median_ms}) for b in run.block_series)
    return run.model_copy(update={"block_series": tuple(blocks)})


def later() -> BenchReport:
    """The first engine slower by 13 %, the second's labels worse, the last gone."""
    bench = rich_bench()
    worse = rich_accuracy("runs/n/model.int8.onnx", 0.85)
    return rich_bench(
        runs=(moved(bench.runs[0], 1.13), *bench.runs[1:4]),
        accuracy=(bench.accuracy[0], worse, bench.accuracy[2]),
    )


@pytest.fixture(scope="module")
def found() -> Comparison:
    return compare(rich_bench(), later(), QUICK, ("a.json", "b.json"))


def visible(page: str) -> str:
    page = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_page_says_what_changed_by_how_much_and_why(found: Comparison, tmp_path: Path) -> None:
    write_comparison(tmp_path / "c.html", found)
    page = (tmp_path / "c.html").read_text()
    text = visible(page)
    change = found.rows[0].of("latency")
    assert change is not None
    assert "1 slower, 2 less accurate;" in lead(found)
    assert lead(found) in text
    assert "slower +13.0 %" in text
    assert change.figures in text
    assert f"latency slower ({change.why})" in text
    assert "Only in a.json: small: model.onnx" in text
    assert "Holm" in text
    assert page.count("<svg") == 2
    assert not re.search(r"https?:", page)


@pytest.mark.parametrize("kind", ["html", "md"])
def test_unlike_and_noisy_runs_are_announced_on_top(kind: str, tmp_path: Path) -> None:
    bench = rich_bench()
    loud = rich_bench(noisy=True, why=("Others were at work.",), pictures=3)
    write_comparison(tmp_path / f"c.{kind}", compare(bench, loud, QUICK, ("a.json", "b.json")))
    text = (tmp_path / f"c.{kind}").read_text()
    text = visible(text) if kind == "html" else text
    top = text[: text.index("Method")]
    assert "The two runs are not comparable." in top
    assert "pictures timed: 14, then 3" in top
    assert "The second run (b.json) was noisy" in top
    assert "Others were at work." in top
