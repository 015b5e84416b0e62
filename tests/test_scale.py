"""The arithmetic of ``docs/scale.md``: from the committed figures, and by hand."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import scripts

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scale() -> Iterator[ModuleType]:
    with scripts() as load:
        yield load("scale")


@pytest.fixture
def figures() -> dict[str, Any]:
    """Round ones, to reckon with by hand."""
    return {
        "measured": "2026-01-01T00:00:00+00:00",
        "machine": {"cpu": "a CPU", "cpu_flags": ["avx2"]},
        "engine": "model.int8.onnx",
        "clip": {
            "name": "clip.mp4",
            "width": 1280,
            "height": 720,
            "fps": 25,
            "megabits_a_second": 4.0,
            "decode_cpu_ms": 2.0,
        },
        "cases": {
            "overlay thrown away": {"cpu_ms": 34.0, "peak_rss_mib": 200, "bytes": 0},
            "with JSON lines": {"cpu_ms": 34.0, "peak_rss_mib": 200, "bytes": 1000},
        },
        "metrics": {"1": {"series": 100, "bytes": 1}, "4": {"series": 190, "bytes": 1}},
    }


def test_by_hand(scale: ModuleType, figures: dict[str, Any]) -> None:
    table = scale.many_cameras(figures)
    rows = {(row[0], row[1]): row[2:] for row in table.rows}
    # 1,000 × 25 × 2 ms to decode; 1,000 × 5 × 32 ms to segment; 64 cores a server; 4 Mbit/s each;
    # 1,000 × 5 lines of 1 kB for 86,400 s; 30 series more a camera.
    assert rows["1,000", "5"] == (
        "50", "160", "3.3", "5", "4 Gbit/s", "432 GB", "30,000",
    )  # fmt: skip
    assert rows["10", "1"][:2] == ("0.5", "0.32")


def test_the_committed_tables_follow_from_the_committed_figures(scale: ModuleType) -> None:
    document = json.loads((scale.RESULTS / "measured.json").read_text("utf-8"))
    assert (scale.RESULTS / "tables.md").read_text("utf-8") == scale.tables(document)
    assert "results/scale/tables.md" in (ROOT / "docs" / "scale.md").read_text("utf-8")
