"""The page in a real browser: what it shows, what its switches do, what it says of trouble."""

import base64
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from cameras import MjpegCamera
from numpy.typing import NDArray
from streaming import Grey, StillSource, card

from edgeseg.artifacts.card import ClassMap
from edgeseg.ops.overlay import overlay
from edgeseg.ops.preprocess import restore_labels
from edgeseg.stream import SourceLimits, Stream, StreamResult, parse_source, run
from edgeseg.stream.web import WebView

Make = Callable[..., StreamResult]
Open = Callable[..., WebView]

PIXELS = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let text = "";
  for (let i = 0; i < data.length; i += 8192)
    text += String.fromCharCode(...data.subarray(i, i + 8192));
  return [canvas.width, canvas.height, btoa(text)];
}"""


def canvas_of(page: Any, camera: int = 0) -> NDArray[np.int64]:
    """What a tile shows, (H, W, 3) BGR."""
    width, height, data = page.locator(f".tile[data-index='{camera}'] canvas").evaluate(PIXELS)
    rgba = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
    assert (rgba[..., 3] == 255).all()
    return rgba[..., 2::-1].astype(np.int64)


def wait_for_frame(page: Any, frame: int, camera: int = 0) -> None:
    page.wait_for_selector(f".tile[data-index='{camera}'] canvas[data-frame='{frame}']")


def wait_for_state(page: Any, state: str, camera: int = 0) -> None:
    page.wait_for_selector(f".tile[data-index='{camera}'] .badge[data-state='{state}']")


def set_opacity(page: Any, percent: int) -> None:
    page.locator("#opacity").fill(str(percent))


def differs(shown: NDArray[np.int64], expected: NDArray[np.uint8]) -> float:
    """Mean difference of the channels; JPEG of these pictures costs less than 3."""
    assert shown.shape == expected.shape
    return float(np.abs(shown - expected).mean())


@pytest.fixture
def page(open_view: Open, visit: Any, result: Make) -> Any:
    """The page of a view with one frame, number 3, of its first camera."""
    view = open_view()
    view.write(result(3))
    page = visit(view.url).page
    wait_for_frame(page, 3)
    return page


def drawn(result: StreamResult, alpha: float, without: int | None = None) -> NDArray[np.uint8]:
    """The overlay as the library draws it."""
    mask = restore_labels(result.labels, result.frame.shape[:2], result.input)
    clear = result.classes.clear | ({without} - {None})
    return overlay(result.frame, mask, result.classes.palette, alpha, clear=clear)


def test_the_picture_moves(open_view: Open, visit: Any, result: Make) -> None:
    view = open_view()
    page = visit(view.url).page
    before = None
    for index in range(4):
        made = result(index, frame=result().frame + np.uint8(20 * index))
        view.write(made)
        wait_for_frame(page, index)
        shown = canvas_of(page)
        assert differs(shown, drawn(made, 0.5)) < 3
        assert before is None or np.abs(shown - before).mean() > 5
        before = shown


def test_opacity_acts_without_another_frame(page: Any, result: Make) -> None:
    for percent in (0, 30, 100, 50):
        set_opacity(page, percent)
        assert page.locator("#opacity-value").text_content() == f"{percent} %"
        assert differs(canvas_of(page), drawn(result(), percent / 100)) < 3
    set_opacity(page, 0)
    assert differs(canvas_of(page), result().frame) < 3
    set_opacity(page, 100)
    shown = canvas_of(page)
    for id_, (red, green, blue) in enumerate(result().classes.palette[1:], 1):
        there = restore_labels(result().labels, (100, 200), result().input) == id_
        assert (shown[there] == (blue, green, red)).all(), "full colours are exact"


def test_the_comparison_tells_a_label_map_that_lies_elsewhere(page: Any, result: Make) -> None:
    moved = result(labels=np.roll(result().labels, 4, axis=1))
    assert differs(canvas_of(page), drawn(moved, 0.5)) > 3
    assert differs(canvas_of(page), drawn(result(), 0.4)) > 3


def test_a_label_map_lies_on_the_picture_as_the_letterbox_says(
    open_view: Open, visit: Any, result: Make
) -> None:
    rows = np.repeat(np.arange(48, dtype=np.uint8) // 12, 64).reshape(48, 64)
    view = open_view()
    page = visit(view.url).page
    for index, shape in enumerate([(100, 200), (160, 90)]):  # bars above, and at the sides
        labels = rows if index == 0 else result().labels
        made = result(index, frame=np.full((*shape, 3), 90, np.uint8), labels=labels)
        view.write(made)
        wait_for_frame(page, index)
        set_opacity(page, 100)
        assert differs(canvas_of(page), drawn(made, 1)) < 3
        stretched = replace(
            made, card=card(made.classes, made.input.model_copy(update={"resize": "stretch"}))
        )
        assert differs(canvas_of(page), drawn(stretched, 1)) > 3


def test_a_class_switched_off_loses_its_colour(page: Any, result: Make) -> None:
    set_opacity(page, 100)
    assert differs(canvas_of(page), drawn(result(), 1, without=2)) > 3
    switch = page.get_by_role("checkbox", name="stem")
    switch.uncheck()
    shown = canvas_of(page)
    assert differs(shown, drawn(result(), 1, without=2)) < 3
    colours = {tuple(pixel) for pixel in shown.reshape(-1, 3)}
    assert (0, 159, 230) not in colours
    assert (115, 158, 0) in colours
    page.keyboard.press("2")
    assert switch.is_checked()
    page.get_by_role("button", name="none").click()
    assert differs(canvas_of(page), result().frame) < 3
    page.get_by_role("button", name="all").click()
    assert differs(canvas_of(page), drawn(result(), 1)) < 3
    page.get_by_role("checkbox", name="background").check()
    assert (canvas_of(page)[:, :40] == 0).all(), "the background can be shown, too"


@pytest.mark.parametrize("background", [None, 2])
def test_class_0_is_drawn_unless_it_is_the_background(
    open_view: Open, visit: Any, result: Make, classes: ClassMap, background: int | None
) -> None:
    names = ("Sky", *classes.names[1:])
    classes = ClassMap(names=names, background=background)
    view = open_view(classes=classes)
    made = result(card=card(classes, result().input))
    view.write(made)
    page = visit(view.url).page
    wait_for_frame(page, 0)
    set_opacity(page, 100)
    switched = page.locator("#legend input")
    expected = [id_ != background for id_ in range(4)]
    assert [switched.nth(id_).is_checked() for id_ in range(4)] == expected
    assert differs(canvas_of(page), drawn(made, 1)) < 3
    page.keyboard.press("0")
    assert differs(canvas_of(page), drawn(made, 1, without=0)) < 3
    page.get_by_role("button", name="none").click()
    assert differs(canvas_of(page), made.frame) < 3
    page.get_by_role("button", name="all").click()
    assert differs(canvas_of(page), drawn(made, 1)) < 3


def test_controls_have_names_and_take_the_keyboard(page: Any) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas")].filter((one) =>
          !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label"))
        ).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.locator("body").press("]")
    assert page.locator("#opacity").input_value() == "60"
    page.locator("body").press("o")
    assert page.locator("#outline").is_checked()
    page.locator("body").press("f")
    box = page.locator(".tile[data-index='0']").bounding_box()
    view = page.viewport_size
    assert (box["width"], box["height"]) == (view["width"], view["height"])
    page.keyboard.press("Escape")
    page.wait_for_selector(".tile:not(.full)[data-index='0']")


def test_a_pause_keeps_the_picture_and_the_snapshot_is_what_is_seen(
    open_view: Open, visit: Any, result: Make
) -> None:
    view = open_view()
    view.write(result(1))
    page = visit(view.url).page
    wait_for_frame(page, 1)
    tile = page.locator(".tile[data-index='0']")
    tile.get_by_role("button", name="Pause").click()
    wait_for_state(page, "paused")
    view.write(result(2))
    view.write(result(0, camera=1))
    wait_for_frame(page, 0, camera=1)
    assert tile.locator("canvas").get_attribute("data-frame") == "1"
    with page.expect_download() as download:
        tile.get_by_role("button", name="Snapshot").click()
    assert download.value.suggested_filename == "edgeseg-0-1.png"
    saved = cv2.imread(str(download.value.path()))
    assert np.array_equal(saved, canvas_of(page))
    tile.get_by_role("button", name="Resume").click()
    wait_for_frame(page, 2)


COLOURED = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let found = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [red, green, blue, alpha] = data.subarray(i, i + 4);
    found += alpha > 250 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60;
  }
  return found;
}"""


def test_charts_fill(open_view: Open, visit: Any, result: Make) -> None:
    view = open_view()
    page = visit(view.url).page
    page.wait_for_selector(".tile")
    charts = ["fps", "age", "parts"]
    page.wait_for_selector("#chart-age[aria-label]")
    assert page.locator("#chart-age").evaluate(COLOURED) == 0, "nothing yet, nothing drawn"
    stop = threading.Event()

    def write() -> None:
        index = 0
        while not stop.wait(0.02):
            view.write(result(index := index + 1))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for name in charts:
            while page.locator(f"#chart-{name}").evaluate(COLOURED) < 4:
                page.wait_for_timeout(20)
        page.wait_for_selector("#chart-age[aria-label*='p50 ']:not([aria-label*='p50 none'])")
        told = page.locator("#chart-parts").get_attribute("aria-label")
    finally:
        stop.set()
        writer.join()
    past = httpx.get(f"{view.url}history?after=-1").json()
    assert told.startswith("Where the time goes: wait 4 ms, preprocess 1 ms, infer 10 ms")
    assert 10 in past["sources"][0]["infer"]
    ages = [age for age in past["sources"][0]["p50"] if age is not None]
    assert ages
    assert min(ages) >= 20


def test_a_stalled_camera_is_not_shown_as_live(
    open_view: Open, visit: Any, result: Make, sources: list[StillSource]
) -> None:
    view = open_view()
    view.write(result(1))
    page = visit(view.url).page
    wait_for_frame(page, 1)
    view.write(result(2))
    wait_for_frame(page, 2)
    wait_for_state(page, "ok")
    over = page.locator(".tile[data-index='0'] .over")
    assert not over.is_visible()
    sources[0].state = "stalled"
    wait_for_state(page, "stalled")
    assert over.is_visible()
    assert over.text_content().startswith("no frame for ")
    tile = page.locator(".tile[data-index='0'].stale canvas")
    assert "grayscale" in tile.evaluate("canvas => getComputedStyle(canvas).filter")
    sources[0].state = "ok"
    view.write(result(3))
    wait_for_frame(page, 3)
    page.wait_for_selector(".tile[data-index='0']:not(.stale)")


def test_a_picture_that_was_old_when_the_page_opened_is_not_shown_as_live(
    open_view: Open, visit: Any, result: Make
) -> None:
    view = open_view()
    view.write(result(1))
    view._status._histories[0].last_at = -60.0  # type: ignore[union-attr]
    page = visit(view.url).page
    wait_for_frame(page, 1)
    wait_for_state(page, "silent")
    view.write(result(2))
    wait_for_frame(page, 2)
    wait_for_state(page, "ok")


def test_the_page_says_when_the_server_is_gone_and_comes_back_by_itself(
    open_view: Open, visit: Any, result: Make
) -> None:
    view = open_view()
    view.write(result(1))
    went = visit(view.url)
    page = went.page
    wait_for_frame(page, 1)
    address = view.url.split("/")[2]
    view.close()
    page.wait_for_selector("#banner:not([hidden])")
    wait_for_state(page, "no contact")
    assert page.locator(".tile.stale").count() == 2
    again = open_view(address)
    again.write(result(8))
    wait_for_frame(page, 8)
    page.wait_for_selector("#banner[hidden]", state="attached")
    again.write(result(9))
    wait_for_frame(page, 9)
    wait_for_state(page, "ok")
    refused = [error for error in went.errors if "ERR_CONNECTION_REFUSED" not in error]
    went.errors[:] = [error for error in refused if "Failed to load resource" not in error]


def test_the_token_opens_the_door_and_leaves_the_address(
    open_view: Open, visit: Any, result: Make
) -> None:
    view = open_view(token="the-right-token-of-1")
    view.write(result(1))
    plain = view.url.partition("?")[0]
    wrong = visit(f"{plain}?token=another-token-of-17")
    assert "not right" in wrong.page.locator("main").text_content()
    assert wrong.page.locator(".tile").count() == 0
    assert len(wrong.errors) == 1
    assert "401" in wrong.errors.pop()
    wrong.page.get_by_label("Token").fill("the-right-token-of-1")
    wrong.page.get_by_role("button", name="Open").click()
    right = visit(f"{plain}?token=the-right-token-of-1")
    for page in (wrong.page, right.page):
        wait_for_frame(page, 1)
        assert page.url == plain
        assert "token" not in page.evaluate("document.cookie + location.href + document.referrer")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_a_phone(open_view: Open, visit: Any, result: Make, scheme: str) -> None:
    view = open_view()
    view.write(result(1))
    size = {"width": 360, "height": 740}
    went = visit(view.url, viewport=size, color_scheme=scheme, has_touch=True, is_mobile=True)
    wait_for_frame(went.page, 1)
    assert went.page.evaluate("document.documentElement.scrollWidth") == 360
    boxes = "[...document.querySelectorAll('body *')].map(e => e.getBoundingClientRect().right)"
    assert max(went.page.evaluate(boxes)) <= 360
    ground = went.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(13, 17, 23)") == (scheme == "dark")


def test_no_request_leaves_the_host(open_view: Open, visit: Any, result: Make) -> None:
    view = open_view()
    view.write(result(1))
    went = visit(view.url)
    wait_for_frame(went.page, 1)
    assert went.hosts == {view.url.split("/")[2]}
    # The policy that holds it, tried: a picture of elsewhere is not even asked for.
    went.page.evaluate("new Image().src = 'http://192.0.2.1/spy.png'")
    while not went.errors:
        went.page.wait_for_timeout(10)
    assert "Content Security Policy" in went.errors.pop()


# ── With cameras ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def two_cameras() -> Iterator[list[MjpegCamera]]:
    with MjpegCamera() as one, MjpegCamera() as other:
        yield [one, other]


def test_two_cameras_of_which_one_dies_and_comes_back(
    two_cameras: list[MjpegCamera], visit: Any
) -> None:
    limits = SourceLimits(open_s=20, read_s=30, stalled_s=30, backoff_s=(0.2,))
    specs = [replace(parse_source(camera.url), limits=limits) for camera in two_cameras]
    engine = Grey()
    view = WebView(engine.card.classes, "0")
    stream = Stream(specs, engine)
    runner = threading.Thread(target=run, args=(stream, [view]))
    runner.start()
    try:
        while not view.url:
            assert runner.is_alive()
        went = visit(view.url)
        page = went.page
        wait_for_state(page, "ok", 0)
        wait_for_state(page, "ok", 1)
        assert "hunter2" not in page.content()
        two_cameras[1].switch_off()
        wait_for_state(page, "reconnecting", 1)
        page.wait_for_selector(".tile.stale[data-index='1']")
        moved_on(page, 0)
        wait_for_state(page, "ok", 0)
        two_cameras[1].switch_on()
        wait_for_state(page, "ok", 1)
        page.wait_for_selector(".tile:not(.stale)[data-index='1']")
        moved_on(page, 1)
        told = httpx.get(f"{view.url}status").text
        assert "hunter2" not in told
        assert '"reconnects":1' in told
        page.close()  # before the stream ends, which it would complain of
    finally:
        stream.stop()
        runner.join()


def moved_on(page: Any, camera: int) -> None:
    """Wait until a camera shows another frame and another picture."""
    before = canvas_of(page, camera)
    frame = page.locator(f".tile[data-index='{camera}'] canvas").get_attribute("data-frame")
    page.wait_for_selector(f".tile[data-index='{camera}'] canvas:not([data-frame='{frame}'])")
    assert np.abs(canvas_of(page, camera) - before).max() > 0
