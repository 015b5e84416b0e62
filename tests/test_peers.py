"""bench/peers: the statistics, the pipe to a real process, what is parsed, and what is refused."""

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scripts import BENCH, scripts

PEERS = BENCH / "peers"

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """Import a script of bench/peers as it sees itself: beside the others."""
    with scripts("peers") as load:
        yield load


@pytest.fixture
def samples(load: Load) -> Callable[..., Any]:
    """Make the samples of a peer from ``(fps, other cores)`` of its rounds."""
    figures = load("figures")

    def make(*rounds: tuple[float, float], **others: Any) -> Any:
        blocks = {
            number: figures.Block(other_cores=other, fps=fps, infer_ms=[1000 / fps], **others)
            for number, (fps, other) in enumerate(rounds)
        }
        return figures.Samples(blocks)

    return make


def test_blocks_beside_other_work_are_left_out(samples: Callable[..., Any]) -> None:
    found = samples((10, 0.0), (11, 0.12), (2, 0.5), (12, 0.1))
    assert found.median("fps") == 11
    assert not found.noisy


def test_a_quiet_minority_is_not_chosen(samples: Callable[..., Any]) -> None:
    found = samples((10, 0.0), (5, 0.5), (6, 0.5))
    assert found.median("fps") == 6
    assert found.noisy


def test_percentiles_are_over_the_frames_of_all_blocks_kept(load: Load) -> None:
    figures = load("figures")
    chance = np.random.default_rng(0)
    frames = [chance.uniform(5, 50, size).tolist() for size in (40, 60, 50)]
    blocks = {
        number: figures.Block(
            other_cores=0.4 if number == 2 else 0.0, fps=1, infer_ms=[1], work_ms=f
        )
        for number, f in enumerate(frames)
    }
    found = figures.Samples(blocks).percentiles("work_ms")
    kept = sorted(frames[0] + frames[1])
    assert found["p50"] == pytest.approx(statistics.median(kept))
    assert found["p99"] == pytest.approx(statistics.quantiles(kept, n=100, method="inclusive")[98])


def test_ratios_are_taken_within_a_round(load: Load, samples: Callable[..., Any]) -> None:
    # The machine halves its speed after two rounds: the medians of each would say 1.33.
    mine, theirs = samples((20, 0), (20, 0), (10, 0)), samples((10, 0), (10, 0), (5, 0))
    found = load("figures").ratio(mine, theirs, "fps")
    assert (found.median, found.low, found.high, found.rounds) == (2, 2, 2, 3)


def test_ratios_need_both_blocks_of_a_round(load: Load, samples: Callable[..., Any]) -> None:
    mine, theirs = samples((20, 0), (90, 0.5), (20, 0)), samples((10, 0), (10, 0), (1, 0.5))
    found = load("figures").ratio(mine, theirs, "fps")
    assert (found.median, found.rounds) == (2, 1)
    assert load("figures").ratio(mine, theirs, "cpu_ms") is None


def camera(
    frames: int, *, read_after: float, shown_after: Callable[[int], float]
) -> dict[str, Any]:
    """A camera of 25 frames a second that started at 100 s."""
    numbers = list(range(frames))
    left = [100 + number / 25 for number in numbers]
    return {
        "numbers": numbers,
        "read": [at + read_after + (0.001 if n else 0) for n, at in enumerate(left)],
        "shown": [at + shown_after(n) for n, at in enumerate(left)],
    }


def test_ages_count_from_the_earliest_read(load: Load) -> None:
    found = load("figures").ages(camera(100, read_after=0.01, shown_after=lambda _: 0.05), 25)
    assert found.p50 == pytest.approx(40)
    assert found.p99 == pytest.approx(40)
    assert (found.shown, found.sent) == (100, 100)


def test_a_loop_that_falls_behind_is_told(load: Load) -> None:
    late = camera(100, read_after=0, shown_after=lambda n: 0.05 + n * 0.01)
    found = load("figures").ages(late, 25)
    assert found.late_ms == pytest.approx(50 + 94.5 * 10)
    assert found.late_ms > found.p50


@pytest.mark.parametrize("number", [0, 1, 624, 65535])
def test_numbers_survive_a_lossy_picture(load: Load, number: int) -> None:
    numbers = load("frame_numbers")
    chance = np.random.default_rng(number)
    frame = chance.integers(0, 256, (720, 1280, 3), np.uint8)
    marked = numbers.mark(frame, number).astype(np.int16)
    noisy = np.clip(marked + chance.integers(-60, 61, frame.shape), 0, 255).astype(np.uint8)
    assert numbers.number_of(noisy) == number
    json.dumps(numbers.number_of(noisy))


def test_what_benchmark_app_prints_is_read(load: Load) -> None:
    printed = """[ INFO ] Latency:
[ INFO ]    Median:        163.73 ms
[ INFO ]    Average:       169.74 ms
[ INFO ] Throughput:   5.88 FPS
"""
    parse = load("peer_benchmark_app").parse
    assert parse(printed) == {"fps": 5.88, "infer_ms": [163.73]}
    with pytest.raises(ValueError, match="no throughput"):
        parse("[ ERROR ] Exception from src/inference")


def test_what_trtexec_prints_is_read(load: Load) -> None:
    # The summary of TensorRT 8 and later, on one line each.
    at = "[07/20/2026-12:17:47] [I]"
    printed = f"""{at} === Performance summary ===
{at} Throughput: 258.892 qps
{at} End-to-End Host Latency: min = 2.1 ms, max = 6.8 ms, mean = 4.1 ms, median = 4.4 ms
{at} Latency: min = 1.87549 ms, max = 6.78198 ms, mean = 4.0024 ms, median = 4.32526 ms
{at} Enqueue Time: min = 0.23 ms, max = 0.65 ms, mean = 0.25 ms, median = 0.24 ms
"""
    parse = load("peer_trtexec").parse
    assert parse(printed) == {"fps": 258.892, "infer_ms": [4.32526]}
    with pytest.raises(ValueError, match="no throughput"):
        parse("&&&& FAILED TensorRT.trtexec")


LOOP = """
import sys, time
sys.path[:0] = [{peers!r}, {bench!r}]
import numpy as np
from frame_numbers import mark
from worker import Drawn, serve

def frames(source):
    print("libraries print what they like")
    if source == "broken":
        raise OSError("no such clip")
    for number in range(int(source)):
        taken = time.monotonic()
        frame = mark(np.zeros((48, 64, 3), np.uint8), number)
        yield Drawn(frame, taken, 2.0, 1.0)

serve(frames, {{"versions": {{"x": "1"}}, "threads": 3}})
"""


@pytest.fixture
def start(load: Load, tmp_path: Path) -> Callable[[str], Any]:
    """Start a peer of this source text."""
    host = load("host")

    def begin(text: str) -> Any:
        script = tmp_path / "peer.py"
        script.write_text(text)
        command = [sys.executable, str(script)]
        return host.Peer("the peer", command, load("setup").environment(), tmp_path / "peer.log")

    return begin


def test_a_peer_answers_blocks(start: Callable[[str], Any]) -> None:
    with start(LOOP.format(peers=str(PEERS), bench=str(BENCH))) as peer:
        assert peer.about == {"versions": {"x": "1"}, "threads": 3}
        block = peer.block(Path("25"), 60)
        assert list(block.work_ms) == [3.0] * 20  # the first five frames are not counted
        assert all(each > 0 for each in block.loop_ms)
        assert block.cpu_ms > 0
        assert block.fps > 0
        assert block.peak_mib > 1


def test_a_peer_says_when_it_showed_which_frame(start: Callable[[str], Any]) -> None:
    with start(LOOP.format(peers=str(PEERS), bench=str(BENCH))) as peer:
        answer = peer.ask(do="live", source="300", seconds=60)
    assert answer["numbers"] == list(range(300))
    assert all(read <= shown for read, shown in zip(answer["read"], answer["shown"], strict=True))


def test_every_comparison_is_of_cases_that_exist(load: Load) -> None:
    cases = load("cases")
    keys = [case.key for case in cases.CASES]
    assert len(set(keys)) == len(keys)
    assert list(cases.compared(keys)) == list(cases.COMPARED)
    assert list(cases.compared(keys[1:])) != list(cases.COMPARED)
    for case in cases.CASES:
        assert (PEERS / case.arguments[0]).is_file()


def test_the_committed_page_is_that_of_the_document(load: Load) -> None:
    from edgeseg.artifacts.documents import load as read

    results = BENCH / "results" / "peers"
    found = read(load("document").Measured, results / "peers.json")
    assert load("page").page(found) == (results / "README.md").read_text()
