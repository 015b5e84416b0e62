"""What a report shows of a benchmark: every figure is the document's, and none is missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from benchmarks import CLASSES, rich_accuracy, rich_bench, rich_run

from edgeseg.artifacts.card import ClassMap
from edgeseg.benchmark.budget import recommend
from edgeseg.benchmark.document import BenchReport, read_bench
from edgeseg.errors import CorruptArtifact, UsageError
from edgeseg.metrics import ConfusionMatrix
from edgeseg.report import WorstPictures, write_report
from edgeseg.report.classes import confusions, heat_map
from edgeseg.report.contents import focus, labels, standing_out
from edgeseg.report.entries import entries
from edgeseg.report.figures import pareto_front, shares_between, trade_figure
from edgeseg.report.state import state_table
from edgeseg.report.sweeps import sweep, sweep_figures
from edgeseg.report.tables import detail_table, latency_table, stages_table
from edgeseg.report.worst import difference, draw_panels

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
    page: str, bench: BenchReport, tmp_path: Path
) -> None:
    """Of two documents with no measured number in common neither have the pages one."""
    other = read_bench(scaled(bench.to_dict()), "scaled")
    elsewhere = write(tmp_path, other, worst=worst_of(bench))
    telling = rf"(?<![\w.,–]){NUMBER}(?![\w.])"
    both = [
        {text for text in re.findall(telling, visible(one)) if len(text.replace(".", "")) > 2}
        for one in (page, elsewhere)
    ]
    assert len(both[0]) > 100
    # What was not changed: sizes, dates, the machine, the method.
    fixed = {"256", "128", "2026", "1000", "0.33", "6.18", "580.65", "143771", "24105", "0.1.0"}
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


def test_plots_follow_the_document(bench: BenchReport) -> None:
    shown = entries(bench)
    moved = [
        entry.__class__(
            entry.number,
            entry.label,
            entry.run.model_copy(update={"drop_interval": (0.0, 0.2)}),
            entry.colour,
        )
        for entry in shown
    ]
    drawn = [trade_figure(one) for one in (shown, entries(bench), moved)]
    first, again, other = (plot.svg() for plot in drawn if plot)
    assert first == again != other


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


def test_figures_show_each_engine_once_and_sweeps_show_the_rest(bench: BenchReport) -> None:
    shown = entries(bench)
    assert [(e.number, e.run.engine, e.run.batch, e.run.threads) for e in shown] == [
        (1, "runs/n/model.onnx", 1, 2),
        (2, INT8, 1, 2),
        (3, "runs/s/model.onnx", 1, 2),
    ]
    assert [run.threads for run in sweep(bench, shown[0], "threads")] == [1, 2]
    assert [run.batch for run in sweep(bench, shown[1], "batch")] == [1, 4]
    assert sweep(bench, shown[2], "batch") == []
    assert len(sweep_figures(bench, shown)) == 2
    alone = bench.model_copy(update={"runs": bench.runs[4:]})
    assert sweep_figures(alone, entries(alone)) == []


def test_labels_name_what_sets_rows_apart_and_no_more() -> None:
    bench = rich_bench()
    assert labels(bench.runs[:3]) == [
        "FP32 · ONNX Runtime · 2 threads",
        "FP32 · ONNX Runtime · 1 thread",
        "INT8 · ONNX Runtime",
    ]
    assert labels(bench.runs[2:5]) == [
        "nuclei · INT8 · ONNX Runtime · batch 1",
        "nuclei · INT8 · ONNX Runtime · batch 4",
        "small · FP32 · ONNX Runtime",
    ]


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


def test_a_matrix_too_large_to_read_is_left_out_and_its_worst_named() -> None:
    many = tuple(f"class {place}" for place in range(40))
    counts = np.eye(40, dtype=int) * 9
    counts[3, 7] = 4
    entry = rich_accuracy("m.onnx", 0.8).model_copy(
        update={"classes": many, "confusion": tuple(map(tuple, counts.tolist()))}
    )
    assert heat_map(entry) == []
    assert confusions(entry) == ["100.0 % of all errors: class 3 predicted as class 7"]


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


def test_panels_are_four_pictures_of_a_phone_s_width() -> None:
    classes = ClassMap(names=("background", "nucleus"))
    picture = np.zeros((300, 1200, 3), np.uint8)
    labels = np.zeros((300, 1200), np.uint8)
    labels[:, 600:] = 1
    drawn = draw_panels("a.png", picture, labels, labels, classes)
    decoded = [cv2.imdecode(np.frombuffer(p, np.uint8), cv2.IMREAD_COLOR) for p in drawn.panels]
    assert [image.shape for image in decoded] == [(90, 360, 3)] * 4
    assert np.abs(decoded[1][45, 300] - np.array(classes.palette[1][::-1], int)).max() < 12
    with pytest.raises(UsageError, match=r"a\.png: .*must have one size"):
        draw_panels("a.png", picture, labels[:9], labels, classes)


def test_worst_pictures_bear_the_score_of_the_document(page: str, bench: BenchReport) -> None:
    scores = next(entry for entry in bench.accuracy if entry.engine == INT8)
    worst = min(scores.pictures, key=lambda picture: picture.iou or 0)
    assert f"{worst.name} mean IoU {100 * (worst.iou or 0):.1f} %" in visible(page)
    assert page.count("data:image/jpeg") == 8


def test_a_noisy_run_says_so_on_top(bench: BenchReport, tmp_path: Path) -> None:
    reason = "Other processes used more than 12% of a core in most blocks."
    loud = rich_bench(noisy=True, why=(reason,), notes=(f"Noisy: {reason}", "Another."))
    text = visible(write(tmp_path, loud))
    assert text.index("This run was noisy") < text.index("Latency, median")
    assert text.count(reason) == 1
    assert "Another." in text
    document = write(tmp_path, loud, "md")
    assert "**This run was noisy" in document.split("## Engines")[0]
    assert "noisy" not in visible(write(tmp_path, bench)).lower()
    assert standing_out(rich_bench(cut_short=True))[0][0].startswith("This run was interrupted")


def test_the_machine_is_shown_before_and_after(bench: BenchReport) -> None:
    table = state_table(bench)
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["Core clocks, MHz"] == ("2450 … 2461", "2300 … 2311")
    assert rows["k10temp Tctl, °C"] == ("51 of 95", "63 of 95")
    assert rows["NVIDIA H200, W"] == ("102", "126")
    assert state_table(rich_bench(before=None)) is None


def test_what_is_looked_at_closely_is_what_was_recommended(bench: BenchReport) -> None:
    plain = focus(bench)
    assert plain is not None
    assert plain.engine == INT8
    wide = focus(bench, recommend(bench, "1s"))
    assert wide is not None
    assert wide.engine == "runs/n/model.onnx"


def test_the_recommendation_is_shown_with_what_was_refused(page: str, tmp_path: Path) -> None:
    text = visible(page)
    assert "For a budget of 15ms: model.int8.onnx" in text
    assert "small at 256×128, FP32 in onnxruntime, 2 threads: p95 is at most" in text
    with pytest.raises(CorruptArtifact, match="the recommendation"):
        write_report(
            tmp_path / "r.md", title="T", bench=rich_bench().to_dict() | {"recommendation": {}}
        )


def test_a_benchmark_without_the_newer_keys_is_shown_too(tmp_path: Path) -> None:
    bare = rich_run("m.onnx", "fp32", 10.0).model_copy(
        update=dict.fromkeys(
            (
                "latency_interval_ms",
                "stages_interval_ms",
                "network",
                "batch",
                "throughput_interval_fps",
                "cold_start_ms",
                "peak_rss_mib",
                "energy_mj_per_frame",
                "power_w",
            )
        )
    )
    gone = dict.fromkeys(("before", "during", "after", "data", "energy"))
    plain = rich_bench(runs=(bare,), accuracy=(), **gone)
    for kind in ("html", "md"):
        path = tmp_path / f"r.{kind}"
        write_report(path, title="T", bench=plain.to_dict())
        assert "FP32 · ONNX Runtime" in path.read_text()
    assert latency_table(plain).rows[0][1] == f"{(bare.latency_ms or {})['p50']:.2f}"
    assert stages_table(plain).rows
    assert "Power" not in [column.name for column in detail_table(plain).columns]
