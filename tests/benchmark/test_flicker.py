"""Flicker of engines on a sequence: known pictures, and real engines with two thresholds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from edgeseg.benchmark.accuracy import measure_flicker
from edgeseg.benchmark.measure import bench, noise_frames
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import OpenFailed, SourceError
from edgeseg.options.benchmark import BenchConfig
from edgeseg.report.tables import bench_table, render_rich

QUICK = BenchConfig(seconds=0.01, rounds=1, warm_up_seconds=0.01, cold_starts=0, idle_seconds=0)


def blinking(folder: Path, greys: list[int]) -> Path:
    """Pictures of the network's size whose left quarter has these greys; the rest is black."""
    folder.mkdir()
    for number, grey in enumerate(greys):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, :16] = grey
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    return folder


def test_each_engine_has_the_flicker_of_its_own_masks(
    tmp_path: Path, write_network: Callable[..., Path]
) -> None:
    sequence = blinking(tmp_path / "frames", [255, 0, 255, 0, 0, 0])  # 2 of 4 triples flicker
    sees, blind = write_network(tmp_path / "sees.onnx"), write_network(tmp_path / "b.onnx", 1, 99.0)
    with OnnxRuntimeEngine(sees, 1) as first, OnnxRuntimeEngine(blind, 1) as second:
        found, summary = measure_flicker([first, second], sequence, 300)
        few, short = measure_flicker([first], sequence, 4)
    assert found == {sees: pytest.approx(0.25 * 2 / 4), blind: 0.0}
    assert (summary.name, summary.frames) == ("frames", 6)
    assert (few[sees], short.frames) == (pytest.approx(0.25), 4)


def test_a_benchmark_has_it_in_its_rows_and_its_table(
    tmp_path: Path, write_network: Callable[..., Path]
) -> None:
    sequence = blinking(tmp_path / "frames", [255, 0, 255])
    with OnnxRuntimeEngine(write_network(tmp_path / "model.onnx"), 1) as engine:
        images = noise_frames(1)
        report = bench([engine], images=images, sequence=sequence, config=QUICK)
        without = bench([engine], images=images, config=replace(QUICK, seed=1))
    assert report.to_dict()["runs"][0]["flicker"] == 0.25
    assert report.to_dict()["sequence"] == {"name": "frames", "frames": 3}
    assert (without.runs[0].flicker, without.sequence) == (None, None)
    console = Console(width=80, record=True)
    console.print(render_rich(bench_table(report)))
    assert "25.00" in console.export_text()
    assert all("Flicker" not in column.name for column in bench_table(without).columns)


def test_what_is_no_sequence_is_refused(tmp_path: Path, write_network: Callable[..., Path]) -> None:
    with OnnxRuntimeEngine(write_network(tmp_path / "model.onnx"), 1) as engine:
        with pytest.raises(SourceError, match="at least 3 frames in the order of time, found 2"):
            measure_flicker([engine], blinking(tmp_path / "frames", [255, 0]), 300)
        with pytest.raises(OpenFailed, match="no such file"):
            bench([engine], images=noise_frames(1), sequence=tmp_path / "a.mp4", config=QUICK)
