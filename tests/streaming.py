"""Parts of a stream that stand still, and a network whose right answer is known."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from cards import model_card
from graphs import onnx_network
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.engines.base import Engine
from edgeseg.sources.packets import PacketTap
from edgeseg.stream.result import State, StreamResult
from edgeseg.stream.sinks.base import Sink
from edgeseg.stream.slots import Intake, Slot

SinkT = TypeVar("SinkT", bound=Sink)


@dataclass
class StillSource:
    """A source as sinks see it, whose values are what the test says."""

    label: str = "camera:0"
    fps: float | None = 25.0
    realtime: bool = True
    index: int = 0
    state: State = "ok"
    taken: int = 0
    dropped: int = 0
    bad_frames: int = 0
    reconnects: int = 0
    live: bool = True
    declared: int | None = None
    packets: PacketTap | None = None


class Undeclared:
    """What opened frames say of themselves that declare nothing but their rate."""

    fps: float | None = 25.0
    declared: int | None = None
    unreadable = 0
    place = None
    captured_at = None
    decoder = None
    name: str | None = None


CLASSES = ClassMap.model_validate({"names": ("background", "road", "traffic sign")})


def still_result(labels: NDArray[np.uint8], **changes: Any) -> StreamResult:
    """A result whose label map is ``labels`` at the network's size, which is the frame's."""
    height, width = labels.shape
    spec = InputSpec(height=height, width=width)
    fields: dict[str, Any] = {
        "index": 0,
        "source": "camera:0",
        "frame": np.zeros((height, width, 3), np.uint8),
        "labels": labels,
        "captured_at": 1000.0,
        "age_ms": 1.0,
        "stages_ms": {"capture": 1.0, "preprocess": 2.0, "infer": 3.0},
        "card": card(changes.pop("classes", CLASSES), changes.pop("input", spec)),
    }
    return StreamResult(**(fields | changes))


def written(sink: SinkT, *results: StreamResult, source: StillSource | None = None) -> SinkT:
    """The sink, opened for a source, given the results, and closed."""
    sink.open([source or StillSource()])
    for result in results:
        sink.write(result)
    sink.close()
    return sink


class Kept(Sink):
    """The results, in the order in which they came."""

    def __init__(self, *, shows_overlay: bool = False) -> None:
        self.shows_overlay = shows_overlay
        self.results: list[StreamResult] = []

    def write(self, result: StreamResult) -> None:
        self.results.append(result)


class Grey(Engine):
    """Class 1 where the mean of the channels is above half; calls ``watch`` with each batch."""

    runtime, path = "test", Path("grey")

    def __init__(self) -> None:
        self.watch: Callable[[NDArray[np.float32]], None] = lambda batch: None
        spec = InputSpec(height=48, width=64, color="bgr", mean=(0, 0, 0), std=(1, 1, 1))
        self.card = card(ClassMap(names=("background", "bright")), spec)

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        self.watch(batch)
        return (batch.mean(axis=1) > 0.5).astype(np.uint8)

    def close(self) -> None: ...


def next_frame(slot: Slot, timeout: float) -> StreamResult | None:
    """The oldest frame of a slot; None if none arrives within ``timeout`` seconds."""
    frames = Intake([slot], slot.changed).take(1, timeout)
    return frames[0] if frames else None


def card(classes: ClassMap, spec: InputSpec) -> ModelCard:
    """Of a network of these classes and this input."""
    return ModelCard(name="still", arch="none", classes=classes, input=spec)


def threshold_network(
    path: Path,
    height: int,
    width: int,
    batch: int | str = 1,
    grey: str = "ReduceMean <axes=[1], keepdims=1> (image)",
    **constants: NDArray[np.float32],
) -> Path:
    """An ONNX network: class 1 where ``grey``, the mean of the channels, is above half."""
    card = model_card(
        ("background", "bright"),
        height,
        width,
        name=path.stem,
        arch="threshold",
        color="bgr",
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    model = onnx_network(
        f"float[{batch},3,{height},{width}] image",
        f"uint8[{batch},{height},{width}] labels",
        f"""
        grey = {grey}
        above = Greater (grey, half)
        bright = Cast <to=2> (above)
        labels = Squeeze (bright, channels)
        """,
        card=card,
        opset=13,
        half=np.float32(0.5),
        channels=[1],
        **constants,
    )
    onnx.save(model, path)
    return path
