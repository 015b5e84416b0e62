"""Views that serve for real on loopback, results made by hand, and a browser to look with."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import StillSource, card

from edgeseg.artifacts.card import ClassMap, InputSpec
from edgeseg.stream.result import StreamResult
from edgeseg.stream.web import WebLimits, WebView

CLASSES = ClassMap.model_validate(
    {
        "names": ("background", "leaf", "stem", "soil & stones <b>"),
        "palette": ((0, 0, 0), (0, 158, 115), (230, 159, 0), (213, 94, 0)),
    }
)
INPUT = InputSpec(height=48, width=64, resize="letterbox")


def quarters(shift: int = 0) -> NDArray[np.uint8]:
    """A label map of the network: classes 0 … 3 as upright stripes, moved right by ``shift``."""
    columns = (np.arange(INPUT.width) + INPUT.width - shift) % INPUT.width * 4 // INPUT.width
    return np.tile(columns.astype(np.uint8), (INPUT.height, 1))


def slope(size: tuple[int, int] = (200, 100), shade: int = 0) -> NDArray[np.uint8]:
    """A picture of ``size`` (W, H) that JPEG keeps well: brighter to the right and by ``shade``."""
    ramp = np.linspace(40, 140, size[0]) + shade
    return np.repeat(np.tile(ramp, (size[1], 1))[..., None], 3, axis=2).astype(np.uint8)


def make_result(index: int = 0, camera: int = 0, **fields: Any) -> StreamResult:
    """A result that was captured just now, wide in a network's letterbox."""
    values: dict[str, Any] = {
        "frame": slope(),
        "labels": quarters(),
        "captured_at": time.monotonic() - 0.02,
        "age_ms": 15.0,
        "stages_ms": {"capture": 40.0, "preprocess": 1.0, "infer": 10.0},
        "card": card(CLASSES, INPUT),
    }
    return StreamResult(index=index, source=f"camera:{camera}", camera=camera, **(values | fields))


@pytest.fixture
def result() -> Callable[..., StreamResult]:
    """``result(index=0, camera=0, **fields) -> StreamResult``."""
    return make_result


@pytest.fixture
def sources() -> list[StillSource]:
    """Two cameras whose values are what the test says."""
    return [StillSource("camera:0", index=0), StillSource("rtsp://user:***@cam/live", index=1)]


@pytest.fixture
def classes() -> ClassMap:
    return CLASSES


@pytest.fixture
def open_view(sources: list[StillSource]) -> Iterator[Callable[..., WebView]]:
    """``open_view(address="127.0.0.1:0", **options) -> WebView`` that serves; closed at the end."""
    opened: list[WebView] = []

    def make(
        address: str = "127.0.0.1:0",
        limits: WebLimits | None = None,
        classes: ClassMap = CLASSES,
        **more: Any,
    ) -> WebView:
        view = WebView(classes, address, limits=limits, **more)
        view.open(sources)
        opened.append(view)
        return view

    yield make
    for view in opened:
        view.close()


class Visit:
    """A page and all that went on in it."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))

    def _heard(self, message: Any) -> None:
        # The advice is for the tests' own reading of canvases.
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:
            self.errors.append(message.text)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """``visit(url, **context options) -> Visit``; what it hears must be nothing unless cleared."""
    contexts = []
    visits: list[Visit] = []

    def go(url: str, **options: Any) -> Visit:
        context = browser.new_context(**options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        visits.append(Visit(context))
        visits[-1].page.goto(url)
        return visits[-1]

    yield go
    for context in contexts:
        context.close()
    assert [error for each in visits for error in each.errors] == []
