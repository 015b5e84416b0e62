"""Measure the CPU time that messages to an MQTT broker cost a frame.

    mosquitto -p 18830 & python bench/messages.py mqtt://127.0.0.1:18830/bench

Frames of 720p with label maps of 512x256, 11 classes and some 100 regions go to the sink alone,
four times as fast as a camera of 25 frames per second would send them; their times are those of
the camera. The time of all threads of the process counts, that of the broker does not.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import circumstances, command_line, turns, words, write_json

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.options.messaging import parse_broker
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.sources.packets import PacketTap
from edgeseg.stream import StreamResult
from edgeseg.stream.messaging import Mqtt, Publisher, Publishing
from edgeseg.stream.result import State

RESULTS = Path(__file__).with_name("results") / "stream" / "messages.json"
CASES: dict[str, float | None] = {"off": None, "--mqtt-every 1": 1.0, "--mqtt-every 0": 0.0}
FPS = 25.0
CLASSES = tuple(f"class {number}" for number in range(11))


class Camera:
    """A source that is always there."""

    index, label, live, realtime = 0, "camera:0", True, True
    fps: float | None = FPS
    declared: int | None = None
    taken = bad_frames = reconnects = dropped = 0
    state: State = "ok"
    packets: PacketTap | None = None


def main() -> None:
    """Measure, print Markdown, write JSON."""
    parser = command_line(__doc__)
    parser.add_argument("broker", type=parse_broker, help="URL of a broker")
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file for the results")
    options = parser.parse_args()
    samples: dict[str, list[float]] = {case: [] for case in CASES}
    for _, case in turns(tuple(CASES), options.rounds):
        samples[case].append(sample(options.broker, CASES[case], options.frames))
    rows = {case: statistics.median(times) for case, times in samples.items()}
    document: dict[str, Any] = {
        "schema": "edgeseg.messages/1",
        **circumstances(),
        "rounds": options.rounds,
        "frames": options.frames,
        "cpu_ms_a_frame": {case: round(value, 4) for case, value in rows.items()},
        "cost_ms_a_frame": {case: round(value - rows["off"], 4) for case, value in rows.items()},
    }
    write_json(options.out, document)
    columns = (*words("Messages"), Column("CPU time a frame", "ms"), Column("Cost", "ms"))
    lines = tuple(
        (case, f"{value:.2f}", f"{value - rows['off']:.2f}") for case, value in rows.items()
    )
    print(render_markdown(Table(columns, lines)))


def sample(broker: Any, every_s: float | None, frames: int) -> float:
    """Return the milliseconds of CPU time a frame."""
    spec = InputSpec(height=256, width=512)
    network = ModelCard(
        name="bench", arch="none", classes=ClassMap.model_validate({"names": CLASSES}), input=spec
    )
    made = np.random.default_rng(0)
    blocks = made.integers(0, len(CLASSES), (10, 16, 16)).astype(np.uint8)
    maps = blocks.repeat(16, axis=1).repeat(32, axis=2)
    frame = np.zeros((720, 1280, 3), np.uint8)
    publisher = None
    if every_s is not None:
        publisher = Publisher(Mqtt(broker), network, Publishing(broker.prefix, every_s))
        publisher.open([Camera()])
    before, start = time.process_time(), time.monotonic()
    for index in range(frames):
        result = StreamResult(
            index, "camera:0", frame, start + index / FPS, labels=maps[index % 10], card=network
        )
        result.mask()  # as a stream does for any sink
        if publisher is not None:
            publisher.write(result)
        time.sleep(0.25 / FPS)
    spent = time.process_time() - before
    if publisher is not None:
        publisher.close()
    return spent / frames * 1000


if __name__ == "__main__":
    main()
