"""Sweeps over batches and threads, on real engines."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.benchmark.cases import Case, Unavailable, first_of_each_path, label_one, open_cases
from edgeseg.benchmark.measure import bench, noise_frames
from edgeseg.engines.base import Capabilities, Engine
from edgeseg.errors import CorruptArtifact, RuntimeMissing
from edgeseg.options.benchmark import BenchConfig

Write = Callable[..., Path]
QUICK = BenchConfig(
    seconds=0.05, rounds=2, min_block_seconds=0.01, warm_up_seconds=0.2, cold_starts=0
)


def test_a_row_for_each_batch_and_each_number_of_threads(
    tmp_path: Path, write_network: Write
) -> None:
    free, fixed = write_network(tmp_path / "free.onnx"), write_network(tmp_path / "one.onnx", 1)
    with ExitStack() as stack:
        opened = open_cases([free, fixed], stack, batches=(1, 4), threads=(1, 2))
        report = bench(opened.cases, images=noise_frames(2), config=QUICK, notes=opened.notes)
    rows = [(Path(run.engine).name, run.threads, run.batch) for run in report.runs]
    assert rows == [
        ("free.onnx", 1, 1), ("free.onnx", 1, 4), ("free.onnx", 2, 1), ("free.onnx", 2, 4),
        ("one.onnx", 1, 1), ("one.onnx", 2, 1),
    ]  # fmt: skip
    assert report.notes[0] == "one.onnx takes 1 picture per call: no row of 4."
    base = {(run.batch, run.threads): run for run in report.runs if run.engine == report.reference}
    for run in report.runs:
        own, fp32 = run.latency_ms, base[run.batch, run.threads].latency_ms
        assert own is not None
        assert fp32 is not None
        assert run.batch is not None
        assert run.throughput_fps == pytest.approx(1e3 * run.batch / own["mean"], 0.01)
        # Against FP32 of the same batch and threads.
        assert run.speedup == pytest.approx(fp32["p50"] / own["p50"], abs=0.01)


def test_the_largest_batch_is_kept_to(make_counting: Any) -> None:
    def opener(path: Path, threads: int | None) -> Engine:
        engine: Engine = make_counting("profile")
        engine.capabilities = Capabilities(largest_batch=4)
        return engine

    with ExitStack() as stack:
        opened = open_cases([Path("p.engine")], stack, batches=(1, 4, 8), opener=opener)
    assert [case.batch for case in opened.cases] == [1, 4]
    assert opened.notes == ["p.engine takes at most 4 pictures per call: no row of 8."]


def test_a_runtime_without_threads_has_one_row(make_counting: Any) -> None:
    given: list[int | None] = []

    def opener(path: Path, threads: int | None) -> Engine:
        given.append(threads)
        engine: Engine = make_counting("plan")
        return engine

    with ExitStack() as stack:
        opened = open_cases([Path("p.engine")], stack, threads=(1, 2), opener=opener)
    assert [case.threads for case in opened.cases] == [None]
    assert opened.notes == ["counting takes no threads: p.engine has one row."]
    assert given == [1]


def test_what_cannot_run_here_is_listed_and_what_is_broken_is_not(tmp_path: Path) -> None:
    def opener(path: Path, threads: int | None) -> Engine:
        raise RuntimeMissing(f"{path.name} needs a GPU")

    with ExitStack() as stack:
        opened = open_cases([Path("p.engine")], stack, opener=opener)
    assert opened.unavailable == [Unavailable(Path("p.engine"), "p.engine needs a GPU")]
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with ExitStack() as stack, pytest.raises(CorruptArtifact, match=r"broken\.onnx"):
        open_cases([broken], stack)


def test_one_picture_is_labelled_by_an_engine_of_any_batch(
    tmp_path: Path, write_network: Write
) -> None:
    paths = [write_network(tmp_path / f"{batch}.onnx", batch) for batch in (1, 3, "N")]
    tensor = np.random.default_rng(0).normal(size=(3, 48, 64)).astype(np.float32)
    with ExitStack() as stack:
        cases = open_cases(paths, stack).cases
        first, *others = (label_one(case.engine, tensor).copy() for case in cases)
    assert set(np.unique(first)) == {0, 1}
    assert all((first == other).all() for other in others)


def test_accuracy_needs_one_case_an_artefact(make_counting: Any) -> None:
    one, two = make_counting("one"), make_counting("two")
    cases = [Case(one, 1, 1), Case(one, 4, 1), Case(two, 1, 1), Case(one, 1, 2)]
    assert list(first_of_each_path(cases)) == [cases[0], cases[2]]
