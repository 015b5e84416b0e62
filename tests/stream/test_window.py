"""The window: its keys without a display, and all of it on a virtual screen."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.artifacts.card import ClassMap
from edgeseg.engines.base import Engine
from edgeseg.stream import Stream, StreamOptions, Window
from edgeseg.stream.sinks.snapshots import save_snapshot
from edgeseg.stream.sinks.window import Controls, Mosaic
from edgeseg.stream.view import View

CLASSES = ClassMap(names=("background", *(f"class {number}" for number in range(1, 31))))


def press(controls: Controls, keys: str, classes: ClassMap = CLASSES) -> View:
    view = View()
    for key in keys:
        assert controls.press(ord(key), controls.view or view, classes) is None
    return controls.view or view


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("+", View(opacity=0.6)),
        ("+++++++++", View(opacity=1.0)),
        ("-------", View(opacity=0.0)),
        ("0", View(bare=True)),
        ("+00", View(opacity=0.6)),
        ("o", View(outline=True)),
        ("l", View(names=False)),
        ("k", View(legend=False)),
        ("c", View(hidden=frozenset({1}))),
        ("nnc", View(hidden=frozenset({2}))),
        ("pc", View(hidden=frozenset({30}))),
        ("n" * 31 + "c", View(hidden=frozenset({1}))),
        ("ncnc", View(hidden=frozenset({1, 2}))),
        ("cc", View()),
        ("ncnca", View()),
        (" hnpx", View()),
    ],
)
def test_keys_change_the_view(keys: str, expected: View) -> None:
    assert press(Controls(), keys) == expected


@pytest.mark.parametrize(
    ("keys", "names", "hidden"),
    [
        ("c", ("Sky", "Road", "Car"), {0}),
        ("nnnnc", ("Sky", "Road", "Car"), {0}),
        ("pc", ("Sky", "Road", "Car"), {2}),
        ("nnc", ("Sky", "Void", "Car"), {2}),
        ("nnpc", ("Sky", "Void", "Car"), {0}),
        ("pc", ("Sky", "Road", "Void"), {1}),
    ],
)
def test_keys_reach_every_class_but_the_background(
    keys: str, names: tuple[str, ...], hidden: set[int]
) -> None:
    assert press(Controls(), keys, ClassMap(names=names)).hidden == hidden


def test_keys_pause_help_and_say_the_class() -> None:
    controls = Controls()
    press(controls, " h")
    assert (controls.paused, controls.helping, controls.view) == (True, True, None)
    press(controls, " hn")
    assert (controls.paused, controls.helping) == (False, False)
    assert controls.message == "class 1: class 1"
    press(controls, "c")
    assert controls.message == "class 1: class 1 (off)"


def test_keys_that_the_window_obeys() -> None:
    controls = Controls()
    for key, wish in ((ord("q"), "quit"), (27, "quit"), (ord("s"), "snapshot")):
        assert controls.press(key, View(), CLASSES) == wish
    assert controls == Controls()


def test_mosaic_letterboxes_and_leaves_the_other_tiles() -> None:
    mosaic = Mosaic(3)
    height, width = mosaic.tile
    white = np.full((100, 100, 3), 255, np.uint8)
    mosaic.put(1, mosaic.fitted(white))
    assert mosaic.picture.shape == (2 * height, 2 * width, 3)
    tile = mosaic.picture[:height, width:]
    assert tile[:, width // 2].min() == 255
    assert tile[:, 0].max() == 0
    assert int((mosaic.picture == 255).all(axis=2).sum()) == height * height


def test_mosaic_of_one_is_the_picture_itself() -> None:
    mosaic = Mosaic(1)
    picture = np.full((30, 50, 3), 7, np.uint8)
    mosaic.put(0, mosaic.fitted(picture))
    np.testing.assert_array_equal(mosaic.picture, picture)
    assert mosaic.picture is not picture


def test_snapshots_overwrite_nothing(tmp_path: Path) -> None:
    mask = np.arange(6, dtype=np.uint8).reshape(2, 3)
    picture = np.zeros((2, 3, 3), np.uint8)
    moment = datetime(2026, 1, 2, 3, 4, 5)
    made = [save_snapshot(tmp_path / "s", picture, mask, lambda: moment) for _ in range(2)]
    assert [path.name for pair in made for path in pair] == [
        *("20260102-030405.png", "20260102-030405-mask.png"),
        *("20260102-030405-2.png", "20260102-030405-2-mask.png"),
    ]
    for _, path in made:
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), mask)


needs_screen = pytest.mark.skipif(
    shutil.which("Xvfb") is None or shutil.which("xdotool") is None,
    reason="needs Xvfb and xdotool (apt install xvfb xdotool)",
)

RUN = """
import sys
from pathlib import Path
from edgeseg.engines import open_engine
from edgeseg.stream import Stream, Window, run
with open_engine(Path(sys.argv[1]), threads=1) as engine:
    run(Stream(["test:320x240@25"] * int(sys.argv[2]), engine), [Window("seen by a test")])
"""


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A virtual screen of its own."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as stream:
            yield f":{stream.readline().strip()}"
    finally:
        server.terminate()
        server.wait()


class Screen:
    """A stream shown on a virtual screen, and fingers for it."""

    def __init__(self, display: str, network: Path, folder: Path, sources: int = 1) -> None:
        self._env = os.environ | {"DISPLAY": display, "QT_QPA_PLATFORM": "xcb"}
        self._env.pop("WAYLAND_DISPLAY", None)
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(network), str(sources)],
            env=self._env | {"PYTHONPATH": os.pathsep.join(paths)},
            cwd=folder,
        )
        search = ("search", "--sync", "--onlyvisible", "--name", "seen by a test")
        self.window = self.fingers(*search).split()[0]

    def fingers(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout

    def press(self, key: str) -> None:
        self.fingers("windowfocus", "--sync", self.window, "key", key)

    def ends(self) -> int:
        return self.process.wait(30)


@pytest.fixture
def screen(display: str, bright_network: Path, tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    """``screen(sources=1)`` starts a stream in ``tmp_path``."""
    screens: list[Screen] = []

    def show(sources: int = 1) -> Screen:
        screens.append(Screen(display, bright_network, tmp_path, sources))
        return screens[-1]

    yield show
    for each in screens:
        each.process.kill()
        each.process.wait()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.02)


@needs_screen
def test_keys_on_a_screen(screen: Callable[..., Screen], tmp_path: Path) -> None:
    shown = screen()
    folder = tmp_path / "snapshots"

    def snapshot(count: int) -> None:
        shown.press("s")
        until(lambda: len(list(folder.glob("*-mask.png"))) == count)

    snapshot(1)
    shown.press("0")
    snapshot(2)
    full, bare = (
        cv2.imread(str(path))
        for path in sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime_ns)
        if "mask" not in path.name
    )
    # Bare, the pattern is grey; with classes it is not.
    assert full is not None
    assert bare is not None
    assert full.shape == bare.shape == (240, 320, 3)
    assert np.abs(full.astype(int) - bare).max() > 50
    shown.press("q")
    assert shown.ends() == 0


class ClientMessage(ctypes.Structure):
    """XClientMessageEvent of Xlib."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 19),  # XEvent is larger than what is used of it
    ]


def press_close_button(display: str, window: int) -> None:
    """What a window manager sends when its close button is pressed (ICCCM 4.2.8.1)."""
    x = ctypes.CDLL("libX11.so.6")
    x.XOpenDisplay.restype = ctypes.c_void_p
    x.XInternAtom.restype = ctypes.c_ulong
    connection = ctypes.c_void_p(x.XOpenDisplay(display.encode()))
    atoms = [x.XInternAtom(connection, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW")]
    message = ClientMessage(type=33, window=window, message_type=atoms[0], format=32)
    message.data[0] = atoms[1]
    assert x.XSendEvent(connection, ctypes.c_ulong(window), 0, 0, ctypes.byref(message))
    x.XCloseDisplay(connection)


@needs_screen
def test_the_close_button_ends_the_stream(screen: Callable[..., Screen], display: str) -> None:
    shown = screen()
    press_close_button(display, int(shown.window))
    assert shown.ends() == 0


def test_an_old_picture_is_grey_and_says_so(engine: Engine) -> None:
    """On what would be given to the screen."""
    (result,) = Stream("test:640x480?frames=1", engine, StreamOptions(realtime=False))
    window = Window()
    window.write(result)
    live = window._tile(0, silent=0.2)
    np.testing.assert_array_equal(live, result.overlay())
    old = window._tile(0, silent=7.4)
    assert (old[..., 0] == old[..., 1]).all()
    assert (old[..., 0] == old[..., 2]).all()
    np.testing.assert_array_equal(
        old[:400, :, 0], cv2.cvtColor(live, cv2.COLOR_BGR2GRAY)[:400] // 2
    )
    assert old[400:].max() > 200, "nothing is written"
    before = result.overlay().copy()
    window.controls.press(ord("0"), View(), CLASSES)
    window._tile(0, silent=0.2)
    np.testing.assert_array_equal(result.overlay(), before)
