"""What a report shows of a benchmark: every figure is the document's, and none is missing."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import CLASSES, rich_accuracy, rich_bench

from edgeseg.artifacts.card import ClassMap
from edgeseg.benchmark.budget import recommend
from edgeseg.benchmark.document import BenchReport, read_bench
from edgeseg.data.panels import difference, draw_panels
from edgeseg.metrics import ConfusionMatrix
from edgeseg.report import WorstPictures, write_report
from edgeseg.report.bars import confusions, heat_map
from edgeseg.report.figures import pareto_front, shares_between
from edgeseg.report.svg import Plot

INT8 = "runs/n/model.int8.onnx"
NUMBER = r"\d+(?:\.\d+)?"


def write(folder: Path, bench: BenchReport, kind: str = "html", **more: Any) -> str:
    path = folder / f"report.{kind}"
    budget = {"recommendation": recommend(bench, "15ms").model_dump(mode="json")}
    write_report(path, title="T", bench=bench.to_dict() | budget, **more)
    return path.read_text()


def visible(page: str) -> str:
    """The words of a page, without styles and plots."""
    page = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


class Tables(HTMLParser):
    """Each table as rows of cells, the heading first."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[list[list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.found.append([])
        elif tag == "tr":
            self.found[-1].append([])
        elif tag in ("td", "th"):
            self.found[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1] and self.found[-1][-1]:
            self.found[-1][-1][-1] += data

    def of(self, *headings: str) -> list[list[str]]:
        """The rows of the table whose heading holds all of ``headings``."""
        (table,) = [t for t in self.found if t and set(headings) <= {c.strip() for c in t[0]}]
        return table[1:]


@pytest.fixture(scope="module")
def bench() -> BenchReport:
    return rich_bench()


@pytest.fixture(scope="module")
def page(bench: BenchReport, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("page"), bench, worst=worst_of(bench))


def worst_of(bench: BenchReport, engine: str = INT8) -> WorstPictures:
    classes = ClassMap(names=CLASSES)
    blank = np.zeros((30, 40), np.uint8)
    scores = next(entry for entry in bench.accuracy if entry.engine == engine)
    drawn = [draw_panels(p.name, blank, blank, blank, classes) for p in scores.worst(2)]
    return WorstPictures(engine, classes, tuple(drawn))


def test_every_cell_of_the_tables_is_the_documents(page: str, bench: BenchReport) -> None:
    ran = [run for run in bench.runs if run.runs_here]
    tables = Tables(page)
    points = ("p50", "p90", "p95", "p99", "mean", "max")
    rows = tables.of(*(f"{point}ms" for point in points))
    assert len(rows) == len(ran)
    for run, row in zip(ran, rows, strict=True):
        assert run.latency_ms is not None
        for point, cell in zip(points, row[1:], strict=True):
            value, *ends = map(float, re.findall(NUMBER, cell))
            assert value == pytest.approx(run.latency_ms[point], abs=0.006)
            known = (run.latency_interval_ms or {}).get(point, ())
            assert ends == pytest.approx(list(known), abs=0.006)
    for run, row in zip(ran, tables.of("infer p50ms"), strict=True):
        assert run.stages_ms is not None
        shown = [float(re.findall(NUMBER, cell)[0]) for cell in row[1:]]
        expected = [s[p] for s in run.stages_ms.values() for p in ("p50", "p95")]
        assert shown == pytest.approx(expected, abs=0.006)
    for run, row in zip(ran, tables.of("MemoryMiB", "PowerW"), strict=True):
        assert run.cold_start_ms is not None
        start = run.cold_start_ms
        expected = [
            start["open"],
            start["first_inference"],
            start["total"],
            run.peak_rss_mib,
            run.energy_mj_per_frame,
            run.energy_above_idle_mj_per_frame,
            run.power_w,
            100 * (run.low_precision_share or 0),
            run.calls,
            12,
            100 * (run.spread or 0),
        ]
        shown = [float(re.findall(NUMBER, cell)[0]) for cell in row[1:]]
        assert shown == pytest.approx(expected, abs=0.51)


def scaled(value: Any, key: str = "") -> Any:
    """The document with every measured number another one."""
    if key == "config":
        return value
    if isinstance(value, dict):
        return {name: scaled(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [scaled(part, key) for part in value]
    if isinstance(value, float):
        return value * 1.419
    return 2 * value + 31 if key in ("confusion", "bytes", "calls") else value


def test_no_number_of_a_page_comes_from_elsewhere(
    page: str, bench: BenchReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two documents that share no measured number give two pages that share none."""
    monkeypatch.setattr(Plot, "svg", lambda _: "")
    other = read_bench(scaled(bench.to_dict()), "scaled")
    elsewhere = write(tmp_path, other, worst=worst_of(bench))
    telling = rf"(?<![\w.,–]){NUMBER}(?![\w.])"
    both = [
        {text for text in re.findall(telling, visible(one)) if len(text.replace(".", "")) > 2}
        for one in (page, elsewhere)
    ]
    assert len(both[0]) > 100
    # What was not changed: sizes, dates, the machine, the method.
    fixed = {"256", "128", "2026", "1000", "0.42", "6.18", "580.65", "143771", "24105", "0.1.0"}
    # No drop, and no speed-up, of the reference against itself.
    assert (both[0] & both[1]) - fixed <= {"0.00", "1.00"}


LEAVES: tuple[tuple[tuple[str | int, ...], Any], ...] = (
    (("machine", "cpu"), "Cortex-A78AE"),
    (("before", "cpu_mhz", 0), 1111.0),
    (("after", "temperatures", 0, "celsius"), 77.0),
    (("after", "gpus", 0, "power_w"), 333.0),
    (("during", "other_cores"), 0.87),
    (("during", "throttle_events"), 3),
    (("energy", "sensors", 0, "idle_w"), 3.21),
    (("config", "rounds"), 31),
    (("config", "confidence"), 0.9),
    (("data", "sha256"), "cd" * 32),
    (("labelled",), 77),
    (("notes", 0), "Something else."),
    (("runs", 0, "latency_ms", "p99"), 31.41),
    (("runs", 0, "latency_interval_ms", "p50", 1), 26.53),
    (("runs", 2, "stages_interval_ms", "infer", "p50", 0), 8.88),
    (("runs", 2, "throughput_fps"), 123.4),
    (("runs", 2, "drop"), 0.0321),
    (("runs", 4, "peak_rss_mib"), 321.0),
    (("runs", 4, "energy_mj_per_frame"), 555.5),
    (("runs", 4, "cold_start_ms", "open"), 77.0),
    (("runs", 4, "blocks_dropped"), 5),
    (("runs", 5, "reason"), "no driver"),
    (("accuracy", 1, "pictures", 0, "iou"), 0.1234),
    (("accuracy", 1, "confusion", 0, 1), 500),
)


@pytest.mark.parametrize(("path", "value"), LEAVES, ids=[".".join(map(str, p)) for p, _ in LEAVES])
def test_a_changed_document_changes_the_report(
    path: tuple[str | int, ...], value: Any, bench: BenchReport, tmp_path: Path
) -> None:
    document = bench.to_dict()
    where: Any = document
    for step in path[:-1]:
        where = where[step]
    assert where[path[-1]] != value
    where[path[-1]] = value
    changed = read_bench(document, "changed")
    assert write(tmp_path, changed, "md") != write(tmp_path, bench, "md")


def test_histograms_hold_the_share_of_calls_that_numpy_counts() -> None:
    noise = np.random.default_rng(1)
    calls = noise.lognormal(2, 0.3, 40_000)
    quantiles = np.percentile(calls, range(101))
    edges = np.linspace(0, calls.max() * 1.01, 30)
    counted = np.histogram(calls, edges)[0] / len(calls)
    assert shares_between(quantiles, edges) == pytest.approx(counted, abs=0.006)
    # Calls that all took the same time are a jump, and none gets lost in it.
    still = np.array([5.0] * 60 + [*np.linspace(5, 6, 41)])
    assert shares_between(still, np.linspace(4, 7, 7)).sum() == pytest.approx(1)


def test_the_pareto_front_is_what_no_other_point_beats() -> None:
    noise = np.random.default_rng(2)
    for _ in range(50):
        costs, values = noise.integers(0, 6, (2, 8)).tolist()
        beaten = {
            a
            for a in range(8)
            for b in range(8)
            if costs[b] <= costs[a]
            and values[b] >= values[a]
            and (costs[b] < costs[a] or values[b] > values[a])
        }
        assert pareto_front(costs, values) == set(range(8)) - beaten


def test_heat_maps_are_the_rows_of_the_confusion_in_per_cent() -> None:
    entry = rich_accuracy("m.onnx", 0.8)
    matrix = np.array(entry.confusion)
    whole = ConfusionMatrix(3)
    whole.matrix += matrix
    rows = heat_map(entry)
    for place, row in enumerate(rows):
        share = 100 * matrix[place] / matrix[place].sum()
        assert [float(cell.text) for cell in row.cells] == pytest.approx(share, abs=0.51)
        assert float(row.iou) == pytest.approx(100 * whole.per_class_iou[place], abs=0.051)
        assert float(row.pixels) == pytest.approx(100 * matrix[place].sum() / matrix.sum(), abs=0.1)
    wrong = matrix - np.diag(np.diag(matrix))
    first = confusions(entry)[0]
    true, taken = np.unravel_index(wrong.argmax(), wrong.shape)
    assert first.endswith(f"{CLASSES[true]} predicted as {CLASSES[taken]}")
    assert first.startswith(f"{100 * wrong.max() / wrong.sum():.1f} %")
    assert heat_map(None) == confusions(entry.model_copy(update={"confusion": ()})) == []


def test_differences_are_red_where_the_labels_are_wrong_and_nowhere_else() -> None:
    noise = np.random.default_rng(3)
    picture = noise.integers(0, 256, (20, 30, 3), np.uint8)
    truth, labels = noise.integers(0, 3, (2, 20, 30)).astype(np.uint8)
    truth[:4] = 255
    drawn = difference(picture, truth, labels, 255)
    red = (drawn == (60, 40, 230)).all(axis=2)
    assert (red == ((truth != labels) & (truth != 255))).all()
    grey = drawn[~red]
    assert (grey == grey[:, :1]).all()
    # What has no label is darker than anything that has one.
    assert drawn[:4].max() < drawn[4:][~red[4:]].min()
