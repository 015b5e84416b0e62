"""The benchmark on real engines, and its parts on inputs whose outcome is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cards import model_card
from numpy.typing import NDArray

from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.benchmark import coldstart, timing
from edgeseg.benchmark.cases import Case, Unavailable
from edgeseg.benchmark.conditions import OtherLoad, busy_seconds
from edgeseg.benchmark.document import BenchReport, read_bench
from edgeseg.benchmark.measure import bench
from edgeseg.benchmark.rows import Measured, disturbances, row, shortcomings
from edgeseg.data.folders import Split, read_split
from edgeseg.engines.base import Capabilities, Engine
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import CorruptArtifact, MismatchedArtifact
from edgeseg.options.benchmark import BenchConfig

CARD = model_card(("background", "nucleus"), 48, 64, name="threshold")
QUICK = BenchConfig(
    seconds=0.1, rounds=3, min_block_seconds=0.02, warm_up_seconds=0.5, cold_starts=0, threads=1
)


class Counting(Engine):
    """Labels everything background, and notes each batch in a diary that engines share."""

    runtime = "counting"

    def __init__(self, name: str, diary: list[str], batch: int | None = None) -> None:
        self.card = CARD.model_copy(update={"name": name})
        self.path = Path(f"{name}.onnx")
        self.capabilities = Capabilities(batch)
        self.shapes: set[tuple[int, ...]] = set()
        self._diary = diary

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        self._diary.append(self.card.name)
        self.shapes.add(batch.shape)
        return np.zeros((len(batch), *batch.shape[2:]), np.uint8)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    noise = np.random.default_rng(0)
    return [noise.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def split(nuclei: Path) -> Split:
    whole = read_split(nuclei, "val")
    return replace(whole, samples=whole.samples[:3])


@pytest.fixture(scope="module")
def measured(
    tmp_path_factory: pytest.TempPathFactory, split: Split, write_network: Callable[..., Path]
) -> BenchReport:
    """Two real engines, the second with another threshold, and an engine for another machine."""
    home = tmp_path_factory.mktemp("bench")
    precise = write_network(home / "model.onnx", 1)
    coarse = write_network(home / "model.int8.onnx", 1, threshold=3.0, precision="int8")
    plan = home / "model.fp16.engine"
    plan.write_bytes(b"ptrt" * 16)
    SideCar(
        artifact_sha256="0" * 64,
        card=CARD.model_copy(update={"precision": "fp16"}),
        runtime="tensorrt-rtx",
        runtime_version="1.7.1",
    ).save(sidecar_path(plan))
    config = replace(QUICK, cold_starts=1)
    with OnnxRuntimeEngine(precise, 1) as first, OnnxRuntimeEngine(coarse, 1) as second:
        return bench(
            [second, first],
            data=split,
            unavailable=[Unavailable(plan, "it needs an NVIDIA GPU")],
            config=config,
        )


def test_every_figure_of_an_engine_that_runs_is_there(measured: BenchReport) -> None:
    for run in measured.runs[:2]:
        assert run.runs_here
        assert run.runtime == "onnxruntime"
        assert run.latency_ms is not None
        assert run.stages_ms is not None
        in_order = [run.latency_ms[key] for key in ("p50", "p90", "p95", "p99", "max")]
        assert in_order == sorted(in_order)
        assert in_order[0] > 0
        assert run.bytes == Path(run.engine).stat().st_size
        assert run.batch == 1
        assert run.calls >= 3 * run.blocks >= 3
        assert run.cold_start_ms is not None
        assert run.cold_start_ms["total"] >= run.cold_start_ms["open"] > 0
        assert run.peak_rss_mib is not None
        assert 20 < run.peak_rss_mib < 2000
        assert len(run.latency_quantiles_ms) == 101
        assert run.latency_quantiles_ms[-1] == run.latency_ms["max"]


def test_stages_add_up_to_the_call(measured: BenchReport) -> None:
    for run in measured.runs[:2]:
        assert run.stages_ms is not None
        assert run.latency_ms is not None
        assert tuple(run.stages_ms) == ("preprocess", "infer", "restore")
        total = sum(stage["mean"] for stage in run.stages_ms.values())
        assert total == pytest.approx(run.latency_ms["mean"], abs=1e-3)
        assert run.throughput_fps == pytest.approx(1000 / run.latency_ms["mean"], rel=1e-2)


def test_accuracy_is_stated_against_the_fp32_engine(measured: BenchReport, split: Split) -> None:
    coarse, precise = measured.runs[:2]
    assert measured.reference == precise.engine
    assert (precise.drop, precise.pixel_agreement, precise.speedup) == (0.0, 1.0, 1.0)
    assert coarse.mean_iou is not None
    assert precise.mean_iou is not None
    assert coarse.drop == precise.mean_iou - coarse.mean_iou
    assert coarse.drop != 0
    assert coarse.pixel_agreement is not None
    assert 0 < coarse.pixel_agreement < 1
    assert measured.labelled == len(split)


def test_engine_for_another_machine_is_listed_and_not_measured(measured: BenchReport) -> None:
    plan = measured.runs[2]
    assert not plan.runs_here
    assert plan.reason == "it needs an NVIDIA GPU"
    assert (plan.runtime, plan.runtime_version, plan.precision) == ("tensorrt-rtx", "1.7.1", "fp16")
    assert plan.bytes == 64
    assert plan.latency_ms is plan.mean_iou is plan.throughput_fps is None


def test_document_has_the_promised_keys_and_reads_back(measured: BenchReport) -> None:
    text = measured.to_json()
    document = json.loads(text)
    assert document == measured.to_dict()
    assert document["schema"] == "edgeseg.bench/2"
    promised = {"engine", "runtime", "precision", "batch", "latency_ms", "throughput_fps"}
    promised |= {"mean_iou", "drop", "bytes", "peak_rss_mib"}
    assert promised <= set(document["runs"][0])
    assert read_bench(document | {"report": "added.html"}, "bench.json") == measured


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"schema": "edgeseg.bench/9"}, MismatchedArtifact, "edgeseg.bench/9"),
        ({"schema": "edgeseg.bench/1"}, MismatchedArtifact, "edgeseg.bench/1"),
        ({"runs": [{"engine": "x"}]}, CorruptArtifact, "runs.0.name"),
        ({"notes": 1}, CorruptArtifact, "notes"),
    ],
)
def test_other_documents_are_refused(
    measured: BenchReport, change: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=rf"bench\.json.*{says}"):
        read_bench(measured.to_dict() | change, "bench.json")
    with pytest.raises(CorruptArtifact):
        read_bench([1, 2], "bench.json")


def test_each_round_gives_every_engine_one_block_in_an_order_the_seed_fixes(
    pictures: list[NDArray[np.uint8]],
) -> None:
    def blocks(seed: int) -> list[str]:
        diary: list[str] = []
        cases = [Case.of(Counting(name, diary)) for name in "abc"]
        config = replace(QUICK, rounds=8, seed=seed, min_block_seconds=1e-6, seconds=1e-6)
        for case in cases:
            timing.warm_up(case, pictures, config)
        diary.clear()
        timings = [timing.Timing(case, stable=True) for case in cases]
        timing.interleave(timings, pictures, config)
        assert all(len(entry.blocks) == 8 for entry in timings)
        # A block of this length is one uncounted call and three counted ones.
        assert all(len(set(diary[at : at + 4])) == 1 for at in range(0, len(diary), 4))
        return diary[::4]

    order = blocks(seed=0)
    rounds = [tuple(order[at : at + 3]) for at in range(0, 24, 3)]
    assert all(sorted(visited) == ["a", "b", "c"] for visited in rounds)
    assert len(set(rounds)) > 1
    assert blocks(seed=0) == order
    assert blocks(seed=1) != order


def test_a_batch_engine_gets_full_batches_and_counts_pictures(
    pictures: list[NDArray[np.uint8]],
) -> None:
    engine = Counting("four", [], batch=4)
    (run,) = bench([engine], images=pictures, config=QUICK).runs
    assert engine.shapes == {(4, 3, 48, 64)}
    assert run.batch == 4
    assert run.latency_ms is not None
    assert run.throughput_fps == pytest.approx(4000 / run.latency_ms["mean"], rel=1e-2)


def test_without_fp32_there_is_no_drop_and_a_note_says_so(
    pictures: list[NDArray[np.uint8]],
) -> None:
    engine = Counting("lonely", [])
    engine.card = engine.card.model_copy(update={"precision": "int8"})
    report = bench([engine], images=pictures, config=QUICK)
    assert report.reference is None
    assert report.runs[0].drop is report.runs[0].speedup is report.runs[0].pixel_agreement is None
    assert any("No FP32 engine" in note for note in report.notes)


def block(median_ms: float, other_cores: float = 0.0) -> timing.Block:
    return timing.Block(np.full((5, 3), median_ms / 3), other_cores)


def test_loud_blocks_are_dropped_unless_quiet_ones_are_a_minority() -> None:
    quiet, loud = block(10), block(20, other_cores=0.5)
    assert timing.quiet_blocks([quiet, loud, quiet], 0.12) == [quiet, quiet]
    assert timing.quiet_blocks([loud, loud, quiet], 0.12) == [loud, loud, quiet]


def test_spread_is_that_of_the_block_medians() -> None:
    assert timing.spread_of([block(10), block(10), block(10)]) == 0
    # Quartiles of 8, 10, 12, 14 by linear interpolation: 9.5 and 12.5, median 11.
    assert timing.spread_of([block(m) for m in (8, 10, 12, 14)]) == pytest.approx(3 / 11)


def test_notes_name_what_makes_a_run_doubtful() -> None:
    engine = Counting("noisy", [])
    config = replace(QUICK, max_spread=0.1)

    def notes(blocks: list[timing.Block], *, stable: bool, start: str | None = None) -> str:
        measured = [Measured(timing.Timing(Case.of(engine), stable, blocks), start=start)]
        runs = [row(measured[0], config)]
        sentences = [*disturbances(measured, runs, config)]
        sentences += shortcomings(measured, runs, config, reference=True)
        return "\n".join(sentences)

    still = [block(10)] * 20
    assert notes(still, stable=True) == ""
    assert "No stable median" in notes(still, stable=False)
    assert "dropped" in (once := notes([*still, block(10, 0.5)], stable=True))
    assert "noisy.onnx (1 of 21)" in once
    assert "all kept: noisy.onnx (20 of 20)" in notes([block(10, 0.5)] * 20, stable=True)
    swinging = notes([block(8), block(10), block(12)] * 10, stable=True)
    assert "spread over more than 10%: noisy.onnx (40%)" in swinging
    assert "99th percentile: noisy.onnx (5)" in notes([block(10)], stable=True)
    assert "noisy.onnx (no such file)" in notes(still, stable=True, start="no such file")


def test_warm_up_gives_up_on_an_engine_that_never_settles(
    pictures: list[NDArray[np.uint8]],
) -> None:
    case = Case.of(Counting("restless", []))
    never = replace(QUICK, stable_within=-1, warm_up_seconds=0.05)
    assert timing.warm_up(case, pictures, never) is False
    assert timing.warm_up(case, pictures, replace(QUICK, stable_within=1e9)) is True


def test_load_of_others_is_read_from_the_kernels_counters(tmp_path: Path) -> None:
    # proc(5): user nice system idle iowait irq softirq steal, in ticks of 1/100 s.
    text = "cpu  100 10 50 9000 700 5 5 30 0 0\ncpu0 1 2 3 4 5 6 7 8\n"
    assert busy_seconds(text) == pytest.approx(2.0)
    assert busy_seconds("") == busy_seconds("cpu 1 2\n") == 0

    stat = tmp_path / "stat"
    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\n")
    meter = OtherLoad(stat)
    stat.write_text("cpu  1000000 0 0 0 0 0 0 0 0 0\n")
    assert meter.cores() > 1
    assert OtherLoad(tmp_path / "absent").cores() == 0


def test_peak_memory_of_a_fresh_process_is_its_own(
    tmp_path: Path, write_network: Callable[..., Path]
) -> None:
    # ru_maxrss survives exec: measured with it, the child would report our ballast.
    ballast = np.ones(600 * 2**20, np.uint8)
    start = coldstart.measure(write_network(tmp_path / "model.onnx", 1), threads=1)
    assert isinstance(start, coldstart.ColdStart)
    assert start.peak_rss_mib < 500
    assert start.total_ms > start.open_ms > 0
    assert ballast[-1] == 1


def test_a_start_that_fails_gives_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"not a network")
    reason = coldstart.measure(broken, threads=1)
    assert isinstance(reason, str)
    assert "model.onnx" in reason
    assert "Traceback" not in reason


def test_medians_of_starts() -> None:
    starts = [coldstart.ColdStart(ms, ms, 3 * ms, 90.0) for ms in (10.0, 50.0, 20.0)]
    assert coldstart.medians(starts) == coldstart.ColdStart(20.0, 20.0, 60.0, 90.0)
