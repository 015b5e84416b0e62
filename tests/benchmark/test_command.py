"""``edgeseg bench`` as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeseg.benchmark import coldstart
from edgeseg.benchmark.document import read_bench

Write = Callable[..., Path]


@pytest.fixture
def network(
    no_cold_starts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_network: Write
) -> Path:
    """``free.onnx`` in the current folder, of any batch."""
    monkeypatch.chdir(tmp_path)
    return write_network(Path("free.onnx"))


def test_a_sweep_is_printed_and_kept(edgeseg: Any, network: Path) -> None:
    outcome = edgeseg(
        *("bench", network, "--batch", "2,1", "--threads", "1,2", "--seconds", "0.1"),
        *("--out", "kept/bench.json", "--json"),
    )
    assert outcome.code == 0, outcome.err
    rows = [(run["threads"], run["batch"]) for run in outcome.document["runs"]]
    assert rows == [(1, 1), (1, 2), (2, 1), (2, 2)]
    kept = read_bench(json.loads(Path("kept/bench.json").read_text()), "kept/bench.json")
    assert kept == read_bench(outcome.document, "stdout")


def test_an_interrupted_run_is_kept_and_ends_as_shells_expect(
    edgeseg: Any, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeseg.benchmark.measure.agreements", interrupt)
    outcome = edgeseg("bench", network, "--seconds", "0.1", "--out", "cut.json", "--json")
    assert outcome.code == 130
    kept = read_bench(json.loads(Path("cut.json").read_text()), "cut.json")
    assert kept.cut_short
    assert kept.runs[0].calls > 0


@pytest.mark.parametrize("batch", [1, 3])
def test_an_engine_of_any_batch_starts_afresh(
    tmp_path: Path, write_network: Write, batch: int
) -> None:
    started = coldstart.measure(write_network(tmp_path / "model.onnx", batch), threads=1)
    assert isinstance(started, coldstart.ColdStart), started
