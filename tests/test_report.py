"""Reports: what each part makes appear, what a page may hold, and hostile names."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from benchmarks import ABSENT, MACHINE, bench_of, plain_run
from rich.console import Console

from edgeseg.artifacts.card import ClassMap
from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.data.panels import draw_panels
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError
from edgeseg.report import Picture, WorstPictures, write_report
from edgeseg.report import html as fitting
from edgeseg.report.tables import Table, bench_table, escape_markdown, render_rich

HOSTILE = "<script>alert('x')</script> & \"q\" | $\\frac{1}{2$ {{ 7*7 }} [red]"
VOID = {"meta", "img", "br", "link", "input", "hr"}
STREAM: dict[str, Any] = {
    "frames": 1497,
    "dropped": 3,
    "seconds": 59.9,
    "fps": 25.0,
    "inference_fps": 48.2,
    "frame_age_ms": {"p50": 24.1, "p95": 31.0, "p99": 38.7},
    "stages_ms": {
        "capture": {"p50": 2.0, "p99": 4.0},
        "infer": {"p50": 16.0, "p99": 26.0},
        "sink": {"p50": 2.0, "p99": 4.0},
    },
    "peak_rss_mib": 182.0,
    "sources": [{"label": "rtsp://camera/live", "state": "ok", "reconnects": 1}],
    "later_key": "passed over",
}
TRAINING: dict[str, Any] = {
    "arch": "unet-lite",
    "dataset": "nuclei",
    "seconds": 92.0,
    "val_mean_iou": 0.8312,
    "history": [
        {"epoch": 1, "loss": 1.2, "mean_iou": 0.4, "learning_rate": 1e-3},
        {"epoch": 2, "loss": 0.8, "mean_iou": None, "learning_rate": 1e-3},
        {"epoch": 3, "loss": 0.6, "mean_iou": 0.83, "learning_rate": 1e-4},
    ],
}


def timed(name: str, precision: str, median: float, **more: Any) -> Run:
    quantiles = tuple(float(median * (0.9 + place / 250)) for place in range(101))
    points = {"p50": median, "p90": median * 1.2, "p95": median * 1.25, "p99": median * 1.29}
    ends = {"mean": median, "max": quantiles[-1]}
    return plain_run(
        name,
        precision=precision,
        bytes=round(2**20 * median / 10),
        threads=None,
        latency_ms=points | ends,
        stages_ms={
            "preprocess": {"p50": 0.4},
            "infer": {"p50": median - 0.6},
            "restore": {"p50": 0.2},
        },
        throughput_fps=1000 / median,
        calls=400,
        blocks=12,
        spread=0.02,
        latency_quantiles_ms=quantiles,
        **more,
    )


def report_of(*runs: Run, **more: Any) -> BenchReport:
    given = {
        "reference": runs[0].engine if runs else None,
        "notes": ("Noisy: others were at work.",),
    }
    return bench_of(*runs, ABSENT, **given | more)


def full_bench() -> BenchReport:
    return report_of(
        timed(
            "runs/n/model.onnx",
            "fp32",
            25.0,
            mean_iou=0.842,
            drop=0.0,
            speedup=1.0,
            pixel_agreement=1.0,
        ),
        timed(
            "runs/n/model.int8.onnx",
            "int8",
            10.0,
            mean_iou=0.838,
            drop=0.004,
            speedup=2.5,
            pixel_agreement=0.9912,
            cold_start_ms={"total": 310.0},
            peak_rss_mib=101.4,
        ),
    )


def picture(kind: str = ".png", size: int = 40, **more: Any) -> Picture:
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    _, data = cv2.imencode(kind, pixels)
    return Picture(**{"title": "a title", "caption": "a caption", "data": data.tobytes()} | more)


def worst_of(engine: str, name: str = "val/images/a.png") -> WorstPictures:
    noise = np.random.default_rng(0)
    truth, labels = noise.integers(0, 2, (2, 30, 40)).astype(np.uint8)
    classes = ClassMap(names=("background", "nucleus"))
    shot = noise.integers(0, 256, (30, 40, 3), np.uint8)
    drawn = draw_panels(name, shot, truth, labels, classes)
    return WorstPictures(engine, classes, (drawn,))


def page(folder: Path, **parts: Any) -> str:
    path = folder / "report.html"
    write_report(path, **{"title": "Nuclei"} | parts)
    return path.read_text()


def printed(table: Table, width: int) -> str:
    console = Console(width=width)
    with console.capture() as caught:
        console.print(render_rich(table))
    return caught.get()


class Reader(HTMLParser):
    """Collects text, tags and ids, and objects to tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids.update(value or "" for name, value in attrs if name == "id")
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h1", "h2", "h3"}:
            self.headings.append(data)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page(
        tmp_path_factory.mktemp("report"),
        bench=full_bench().to_dict(),
        stream=STREAM,
        training=TRAINING,
        pictures=[picture()],
        worst=worst_of("runs/n/model.int8.onnx"),
        commands=["edgeseg train --data nuclei"],
    )


def test_a_full_page_has_all_sections_and_is_well_formed(full: str) -> None:
    reader = Reader(full)
    sections = ["Engines", "Stream", "Training", "Predictions", "Method", "Machine", "Commands"]
    assert set(sections) < set(reader.headings)
    assert "Worst pictures" in reader.headings
    # Trade-off, histogram, latency, loss, score.
    assert reader.tags["svg"] == 5
    assert reader.tags["img"] == 1 + 4
    assert max(reader.ids.values()) == 1


def test_the_page_needs_nothing_but_itself(full: str) -> None:
    reader = Reader(full)
    assert reader.tags["script"] == reader.tags["link"] == 0
    assert not re.search(r"https?:", full)
    assert "default-src 'none'" in full
    assert not re.search(r"url\((?!#)|@import", full)
    assert all(link.startswith(("data:image/", "#")) for link in reader.links)
    assert "prefers-color-scheme: dark" in full
    assert 'name="viewport"' in full


def test_every_reference_inside_a_figure_has_its_target(full: str) -> None:
    ids = set(Reader(full).ids)
    targets = re.findall(r'(?:href="|url\()#([\w-]+)', full)
    assert targets
    assert set(targets) <= ids


@pytest.mark.parametrize(
    ("parts", "headings"),
    [
        ({}, set()),
        ({"machine": MACHINE.to_dict()}, {"Machine"}),
        ({"stream": STREAM}, {"Stream", "Percentiles"}),
        ({"training": TRAINING}, {"Training"}),
        ({"commands": ["edgeseg doctor"]}, {"Commands"}),
        ({"bench": report_of(labelled=0).to_dict()}, {"Engines", "Method", "Machine"}),
    ],
    ids=["nothing", "machine", "stream", "training", "commands", "no engine runs here"],
)
def test_sections_appear_with_their_part(
    parts: dict[str, Any], headings: set[str], tmp_path: Path
) -> None:
    reader = Reader(page(tmp_path, **parts))
    assert set(reader.headings) == {"Nuclei"} | headings
    write_report(tmp_path / "report.md", title="Nuclei", **parts)
    document = (tmp_path / "report.md").read_text()
    found = set(re.findall(r"^##+ (.+)$", document, re.MULTILINE))
    assert found == headings


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = timed(HOSTILE, HOSTILE, 10.0, mean_iou=0.5)
    other = timed("b.onnx", HOSTILE, 20.0, mean_iou=0.5)
    bench = report_of(run, other, notes=(HOSTILE,))
    parts: dict[str, Any] = {
        "bench": bench.to_dict(),
        "stream": STREAM
        | {"sources": [{"label": HOSTILE}], "stages_ms": {HOSTILE: {"p50": 1.0, "p99": 2.0}}},
        "training": TRAINING | {"arch": HOSTILE, "history": [{HOSTILE + "loss": 1.0}]},
        "pictures": [picture(title=HOSTILE, caption=HOSTILE)],
        "machine": MACHINE.to_dict() | {"cpu": HOSTILE},
        "commands": [HOSTILE],
    }
    text = page(tmp_path, **parts, title=HOSTILE)
    reader = Reader(text)
    assert reader.tags["script"] == 0
    assert "<script" not in text
    assert "{{ 7*7 }}" in text
    assert text.count("&lt;script&gt;") > 10


def test_markdown_keeps_hostile_names_in_their_cell(tmp_path: Path) -> None:
    bench = report_of(timed(HOSTILE, "fp32", 10.0), notes=("a\n# b",))
    write_report(tmp_path / "r.md", title=HOSTILE, bench=bench.to_dict(), commands=["a```b"])
    text = (tmp_path / "r.md").read_text()
    assert not re.search(r"(?<!\\)<script", text)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    widths = {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:4]}
    assert len(widths) == 1
    assert "\n# b" not in text
    assert "````sh\na```b\n````" in text


def test_terminal_table_fits_eighty_characters_and_marks_the_fastest() -> None:
    bench = full_bench()
    slow = timed("model.safetensors", "fp32", 2521.98, mean_iou=0.8, drop=-0.0141, speedup=0.05)
    slow = slow.model_copy(update={"runtime": "torch", "pixel_agreement": 1.0})
    table = bench_table(bench.model_copy(update={"runs": (*bench.runs, slow)}))
    text = printed(table, width=80)
    assert "…" not in text
    assert "INT8 · ONNX Runtime" in text
    assert "−1.41" in text
    assert table.rows[table.emphasis or 0][0] == "INT8 · ONNX Runtime"


def test_a_page_of_many_large_pictures_stays_below_three_megabytes(tmp_path: Path) -> None:
    pictures = [picture(size=800 + place) for place in range(6)]
    assert sum(len(one.data) for one in pictures) > 10 * 2**20
    text = page(tmp_path, pictures=pictures)
    assert len(text.encode()) < 3_000_000
    assert text.count("data:image/jpeg") == 6


@pytest.mark.parametrize(
    ("pictures", "budget", "error", "says"),
    [
        ([picture(data=b"GIF89a")], 10**6, CorruptArtifact, "'a title': expected the bytes of"),
        ([picture(data=b"\xff\xd8\xff cut")], 2, CorruptArtifact, "cannot be decoded"),
        ([picture()] * 3, 100, UsageError, "3 pictures are too many"),
    ],
    ids=["no picture", "truncated", "too many"],
)
def test_pictures_that_cannot_be_shown_are_refused(
    pictures: list[Picture], budget: int, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fitting.fit(pictures, budget)


@pytest.mark.parametrize(
    ("parts", "error", "says"),
    [
        ({"bench": {"schema": "edgeseg.bench/9"}}, MismatchedArtifact, "edgeseg.bench/9"),
        ({"bench": {"runs": 3}}, CorruptArtifact, "the benchmark: "),
        ({"stream": {"frames": 1}}, CorruptArtifact, "the stream summary: seconds"),
        ({"training": {"history": 5}}, CorruptArtifact, "the training summary: history"),
        ({"machine": {"cpu": "x"}}, CorruptArtifact, "the machine: cores"),
    ],
)
def test_parts_that_are_something_else_are_refused(
    parts: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        page(tmp_path, **parts)
    assert list(tmp_path.iterdir()) == []


def test_markdown_escapes_what_it_would_read() -> None:
    assert escape_markdown("a|b_c*d`e\nf") == "a\\|b\\_c\\*d\\`e f"
