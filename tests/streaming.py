"""Parts of a stream that stand still, for tests of what comes after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.sources.packets import PacketTap
from edgeseg.stream.reader import State
from edgeseg.stream.result import StreamResult
from edgeseg.stream.slots import Intake, Slot


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


def next_frame(slot: Slot, timeout: float) -> StreamResult | None:
    """The oldest frame of a slot; None if none arrives within ``timeout`` seconds."""
    frames = Intake([slot], slot.changed).take(1, timeout)
    return frames[0] if frames else None


def card(classes: ClassMap, spec: InputSpec) -> ModelCard:
    """Of a network of these classes and this input."""
    return ModelCard(name="still", arch="none", classes=classes, input=spec)
