"""What is sent and told: packets, who waits for them, figures second by second."""

import asyncio
import json
import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from streaming import StillSource

from edgeseg.ops.overlay import class_areas
from edgeseg.ops.preprocess import nearest, restore_labels
from edgeseg.stream.result import StreamResult
from edgeseg.stream.web.hub import Hub, encode
from edgeseg.stream.web.status import About, History, Status

Make = Callable[..., StreamResult]


def unpack(packet: bytes) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    """Header, JPEG, label map inflated, what follows."""
    (length,) = struct.unpack_from("<I", packet)
    header = json.loads(packet[4 : 4 + length])
    rest = packet[4 + length :]
    jpeg, rest = rest[: header["jpeg"]], rest[header["jpeg"] :]
    return header, jpeg, zlib.decompress(rest[: header["labels"]]), rest[header["labels"] :]


@pytest.mark.parametrize("size", [(200, 100), (90, 160), (64, 48), (1, 1), (7, 300)])
def test_a_packet_holds_the_picture_and_the_labels_that_lie_on_it(
    result: Make, size: tuple[int, int]
) -> None:
    frame = np.full((size[1], size[0], 3), (40, 90, 160), np.uint8)
    made = result(5, 1, frame=frame)
    header, jpeg, labels, rest = unpack(encode(9, made, 1280))
    assert (header["camera"], header["number"], header["frame"], rest) == (1, 9, 5, b"")
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == frame.shape == (header["height"], header["width"], 3)
    assert np.abs(picture.astype(int) - frame).max() <= 4
    part = np.frombuffer(labels, np.uint8).reshape(header["rows"], header["columns"])
    restored = restore_labels(made.labels, frame.shape[:2], made.input)
    assert np.array_equal(nearest(part, frame.shape[:2]), restored)
    areas = class_areas(restored, 4) / restored.size
    assert header["shares"] == pytest.approx(areas.tolist(), abs=1e-5)


# ── Who waits ─────────────────────────────────────────────────────────────────────────────


class Encoder:
    """Counts, and waits where it is told to."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, number: int, result: StreamResult) -> bytes:
        self.numbers.append(number)
        assert self.go.wait(10)
        return f"{result.camera}:{number}:{result.index}".encode()


def test_nothing_is_encoded_while_nobody_asks_and_once_for_all_who_do(result: Make) -> None:
    encoder = Encoder()
    hub = Hub([0, 1], encoder)

    async def look() -> None:
        for index in range(50):
            hub.put(result(index))
        assert encoder.numbers == []
        assert await hub.news({0: 0, 1: 0}, 5) == [0]
        packets = await asyncio.gather(*(hub.packet(0) for _ in range(20)))
        assert set(packets) == {b"0:50:49"}
        assert encoder.numbers == [50]
        assert await hub.packet(1) == b""

    asyncio.run(look())
    hub.close()


def test_a_frame_from_another_thread_wakes_those_who_wait(result: Make) -> None:
    hub = Hub([0, 1], Encoder())

    async def look() -> list[list[int]]:
        hub.put(result(0))
        waiting = [asyncio.ensure_future(hub.news({0: 1}, 20)) for _ in range(5)]
        other = asyncio.ensure_future(hub.news({1: 0}, 0.2))
        await asyncio.sleep(0)
        thread = threading.Thread(target=lambda: hub.put(result(1)))
        thread.start()
        answers = await asyncio.gather(*waiting, other)
        thread.join()
        return list(answers)

    assert asyncio.run(look()) == [[0]] * 5 + [[]]
    hub.close()


def test_who_asks_during_an_encoding_gets_that_one_and_then_the_newest(result: Make) -> None:
    encoder = Encoder()
    encoder.go.clear()
    hub = Hub([0], encoder)

    async def look() -> None:
        hub.put(result(0))
        first = asyncio.ensure_future(hub.packet(0))
        while not encoder.numbers:
            await asyncio.sleep(0)
        hub.put(result(1))
        hub.put(result(2))
        second = asyncio.ensure_future(hub.packet(0))
        gone = asyncio.ensure_future(hub.packet(0))
        await asyncio.sleep(0)
        gone.cancel()
        encoder.go.set()
        assert await first == await second == b"0:1:0"
        assert await hub.news({0: 1}, 5) == [0]
        assert await hub.packet(0) == b"0:3:2"

    asyncio.run(look())
    hub.close()
    assert encoder.numbers == [1, 3]


def test_closing_lets_those_who_wait_go(result: Make) -> None:
    hub = Hub([0], Encoder())

    async def look() -> list[int]:
        waiting = asyncio.ensure_future(hub.news({0: 0}, 600))
        await asyncio.sleep(0)
        threading.Thread(target=hub.close).start()
        return await waiting

    assert asyncio.run(look()) == []


# ── Figures ───────────────────────────────────────────────────────────────────────────────


def test_history_by_hand() -> None:
    history = History()
    for second in (0, 1, 2, 5):
        for n in range(10):
            at = second + n / 10
            history.add(at, 20.0 + second, 15.0, {"preprocess": 2.0, "infer": 8.0, "capture": 40})
    columns = history.columns(0, 6)
    assert columns["fps"] == [10, 10, 10, 0, 0, 10]
    # Linear interpolation between sorted samples: position (n - 1) * p / 100.
    assert columns["p50"] == [20, 20.5, 21, None, None, 21.5]
    assert columns["p99"][5] == 25
    assert columns["wait"] == [5, 5, 5, None, None, 5]
    assert columns["infer"] == [8, 8, 8, None, None, 8]
    assert columns["postprocess"] == [5, 6, 7, None, None, 10]
    parts = ("wait", "preprocess", "infer", "postprocess")
    assert sum(columns[part][5] or 0 for part in parts) == 25, "the parts make up the age"
    assert history.fps(6.5) == 30 / 5
    assert history.fps(0.5) == 0
    assert history.age_ms(5.95)["p50"] == 21.5
    assert history.age_ms(100) == {"p50": None, "p95": None, "p99": None}


def test_history_forgets() -> None:
    history = History()
    for second in range(1000):
        history.add(second, 1.0, 1.0, {})
    assert history.columns(0, 5)["fps"] == [0] * 5
    assert history.columns(995, 1000)["fps"] == [1] * 5
    assert len(history._seconds) == 190
    for last in range(1, 1001):
        history.columns(last - 1, last)
    assert len(history._rows) <= 181
    assert history.columns(900, 903)["p50"] == [1.0] * 3


def test_status_adds_up(result: Make, sources: list[StillSource], classes: Any) -> None:
    status = Status(sources, classes, About("net.onnx", "openvino", "int8"))
    sources[0].taken, sources[1].taken = 3, 4
    sources[1].state, sources[1].reconnects, sources[1].dropped = "stalled", 2, 7
    status.add(result(0))
    told = json.loads(json.dumps(status.describe()))
    assert list(told) == [
        *("schema_version", "run", "engine", "classes", "background", "seconds", "frames"),
        *("dropped", "bad_frames", "reconnects", "fps", "peak_rss_mib", "sources", "sinks"),
    ]
    assert (told["frames"], told["reconnects"], told["dropped"]) == (7, 2, 7)
    assert told["engine"] == {"name": "net.onnx", "runtime": "openvino", "precision": "int8"}
    assert told["classes"][1] == {"name": "leaf", "color": "#009e73"}
    first, second = told["sources"]
    assert first["silent_s"] < 60
    assert first["frame_age_ms"]["p50"] >= 20
    assert (second["silent_s"], second["state"]) == (None, "stalled")
    assert second["frame_age_ms"] == {"p50": None, "p95": None, "p99": None}
    assert status.delivering
    sources[0].state = "reconnecting"
    assert not status.delivering
