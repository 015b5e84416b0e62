"""Nothing that is to be obscured leaves a stream: each output is searched for it."""

import json
import re
import struct
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from streaming import StillSource, still_result

import edgeseg
import edgeseg.stream
from edgeseg.engines.base import Engine
from edgeseg.engines.pipeline import CpuPipeline, PipelineResult
from edgeseg.errors import UsageError
from edgeseg.ops.zone import load_zone
from edgeseg.options.privacy import Privacy
from edgeseg.stream import (
    Masks,
    Recording,
    Sink,
    Stream,
    StreamOptions,
    StreamResult,
    UncertainFrames,
    VideoPublisher,
    View,
    run,
)
from edgeseg.stream.alerts import AlertOutputs, Alerts, Clips, parse_rule
from edgeseg.stream.privacy import PrivacyFilter
from edgeseg.stream.sinks import encoded, matroska
from edgeseg.stream.sinks.snapshots import save_snapshot
from edgeseg.stream.web import WebView

SIZE = (192, 256)
SECRET = ((255, 20, 255), (20, 255, 255))
"""Two bright colours that appear nowhere else; of their mixtures only those of one part in four
are as close to one of them as JPEG may move a colour."""


def secret_frame(index: int) -> NDArray[np.uint8]:
    """Dark noise, a chequered rectangle that moves, and a grey patch that shakes.

    The patch raises the alert and is uncertain, though the rectangle is covered.
    """
    frame = np.random.default_rng(index).integers(0, 60, (*SIZE, 3), np.uint8)
    left = 200 + 8 * (index % 2)
    frame[150:180, left : left + 40] = 200
    top, left = 40 + 2 * index, 60 + 3 * index
    rows, columns = np.indices((64, 96)) // 8
    frame[top : top + 64, left : left + 96] = np.array(SECRET, np.uint8)[(rows + columns) % 2]
    return frame


def shows_secret(picture: NDArray[np.uint8]) -> bool:
    """Whether one pixel of a picture is of the secret's colours, as far as JPEG keeps them."""
    far = [np.abs(picture.astype(int) - colour).max(axis=2) for colour in SECRET]
    return bool((np.minimum(*far) < 55).any())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    writer = cv2.VideoWriter()
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    path = folder / "clip.mkv"
    assert writer.open(str(path), cv2.CAP_FFMPEG, codec, 25.0, SIZE[::-1])
    for index in range(6):
        writer.write(secret_frame(index))
    writer.release()
    return path


class Look(Sink):
    """What a browser is sent, and all that a window draws from a result."""

    def __init__(self, view: WebView) -> None:
        self.pictures: dict[str, list[NDArray[np.uint8]]] = {}
        self._view = view

    def write(self, result: StreamResult) -> None:
        views = {"no classes": View(bare=True), "outlines": View(0.0, outline=True)}
        drawn = {name: result.draw(view) for name, view in views.items()}
        drawn |= {"frame": result.frame, "overlay": result.overlay(), "web": self._fetch()}
        for name, picture in drawn.items():
            self.pictures.setdefault(name, []).append(picture.copy())

    def _fetch(self) -> NDArray[np.uint8]:
        with urllib.request.urlopen(f"{self._view.url}frames?after=0:0", timeout=30) as answer:
            packet = answer.read()
        (length,) = struct.unpack_from("<I", packet)
        header = json.loads(packet[4 : 4 + length])
        data = packet[4 + length : 4 + length + header["jpeg"]]
        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def every_output(
    engine: Engine, clip: Path, folder: Path, play: Callable[[Path], list[Any]], **options: Any
) -> Iterator[tuple[str, Sequence[NDArray[np.uint8]]]]:
    """Name and pictures of each output of a stream."""
    view = WebView(engine.card.classes, "127.0.0.1:0")
    look = Look(view)
    clips = Clips(folder / "clips", overlay=False)
    alerts = AlertOutputs(snapshots=folder / "alerts", clips=clips)
    recordings = [Recording(folder / "overlay.mkv"), Recording(folder / "raw.mkv", overlay=False)]
    sinks = [
        *recordings,
        VideoPublisher(str(folder / "live.m3u8")),
        Masks(folder / "masks", coloured=True),
        Alerts([parse_rule("bright > 0%")], engine.card.classes, alerts),
        UncertainFrames(folder / "uncertain", engine.card.classes),
        view,
        look,
    ]
    stream = Stream(clip, engine, StreamOptions(opacity=0.0, legend=False, **options))
    assert run(stream, sinks).frames == 6
    yield from look.pictures.items()
    for recording in recordings:
        yield recording.path.name, play(recording.path)
    yield "published", play(folder / "live.m3u8")
    (written,) = (folder / "clips").iterdir()
    yield "clips", play(written)
    for name in ("alerts", "masks", "uncertain/train/images"):
        files = sorted((folder / name).glob("*.png"))
        yield name, [np.asarray(cv2.imread(str(path)), np.uint8) for path in files]


@pytest.mark.parametrize(
    ("options", "painted", "with_pyav"),
    [
        ({"blur": ("bright",)}, False, False),
        ({"cover": ("zone.json",), "mode": "latency"}, True, True),
    ],
    ids=["blur without PyAV", "cover on a GPU"],
)
def test_no_output_shows_a_pixel_of_it(
    options: dict[str, Any],
    painted: bool,
    with_pyav: bool,
    engine: Engine,
    clip: Path,
    tmp_path: Path,
    play: Callable[[Path], list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (encoded, matroska):
        monkeypatch.setattr(module, "have_pyav", lambda: with_pyav)
    if painted:
        monkeypatch.setattr(engine, "open_pipeline", lambda: Painting(engine))
    zone = {"size": SIZE[::-1], "polygons": [[[50, 30], [190, 30], [190, 130], [50, 130]]]}
    Path("zone.json").write_text(json.dumps(zone))
    outputs = dict(every_output(engine, clip, tmp_path / "on", play, **options))
    counts = {name: len(pictures) for name, pictures in outputs.items()}
    assert counts.pop("uncertain/train/images") > 0
    assert counts == {
        **dict.fromkeys(("frame", "overlay", "no classes", "outlines", "web"), 6),
        **dict.fromkeys(("overlay.mkv", "raw.mkv", "published", "masks", "clips"), 6),
        "alerts": 2,
    }
    found = [name for name, pictures in outputs.items() if any(map(shows_secret, pictures))]
    assert not found
    assert all(picture.any() for pictures in outputs.values() for picture in pictures)


def test_without_the_options_each_output_shows_it(
    engine: Engine, clip: Path, tmp_path: Path, play: Callable[[Path], list[Any]]
) -> None:
    outputs = dict(every_output(engine, clip, tmp_path, play))
    del outputs["masks"]  # class ids
    for name, pictures in outputs.items():
        pictures = pictures[1:] if name == "alerts" else pictures
        assert all(map(shows_secret, pictures)), name


def test_outputs_have_no_pictures_but_those_of_results() -> None:
    """Readers, their slots and lanes hold frames that nothing has obscured yet."""
    package = Path(edgeseg.stream.__file__).parent
    outputs = [path for path in package.rglob("*.py") if path.parent != package]
    outputs += (package.parent / "cli").glob("*.py")
    early = re.compile(r"\bopen_frames\b|\.slot\b|edgeseg\.stream\.(slots|lanes)\b|import Reader\b")
    assert early.search((package / "reader.py").read_text())
    found = [path.name for path in outputs if early.search(path.read_text())]
    assert len(outputs) > 30
    assert not found
    # Packets of a camera, which a stream offers only where it obscures nothing.
    packets = re.compile(r"(?<!web|seg)\.packets\b(?! import)")
    assert [path.name for path in outputs if packets.search(path.read_text())] == ["clips.py"]


class Painting(CpuPipeline):
    """Draws the classes on the frames like one on a GPU, before anything is obscured."""

    on_gpu = True


class Blind(CpuPipeline):
    """Misses everything in every other frame."""

    count = 0

    def _segment(self, frames: Sequence[NDArray[np.uint8]], look: Any) -> PipelineResult:
        result = super()._segment(frames, look)
        self.count += 1
        if self.count % 2 == 0:
            result.labels[0][...] = 0
        return result


@pytest.mark.parametrize("hold", [0.0, 0.5])
def test_a_frame_in_which_the_network_misses_it_does_not_show_it(
    hold: float, engine: Engine, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "open_pipeline", lambda: Blind(engine))
    plain = [shows_secret(each.frame) for each in Stream(clip, engine, StreamOptions())]
    assert plain == [True] * 6
    options = StreamOptions(blur=("bright",), blur_hold=hold, blur_margin=12)
    results = list(Stream(clip, engine, options))
    assert [bool(each.labels.any()) for each in results] == [True, False] * 3
    assert not any(shows_secret(each.frame) for each in results)


def filtered(moments: Sequence[tuple[float, bool]], hold: float = 1.0, **fields: Any) -> list[bool]:
    """Whether the middle of each frame is obscured; each has a time and whether it is seen."""
    options = Privacy(pixelate=("road",), blur_hold=hold, blur_margin=0)
    noise = np.random.default_rng(0).integers(1, 256, (48, 64, 3), np.uint8)
    made: list[StreamResult] = []
    for at, seen in moments:
        labels = np.zeros((48, 64), np.uint8)
        labels[16:32, 16:48] = seen
        made.append(still_result(labels, frame=noise.copy(), captured_at=at, **fields))
    privacy = PrivacyFilter(options, made[0].classes, [StillSource()])
    for result in made:
        privacy.apply(result)
    assert all(np.array_equal(each.frame[:16], noise[:16]) for each in made)
    return [bool((each.frame != noise)[16:32, 16:48].any(2).all()) for each in made]


def test_a_place_stays_obscured_for_the_hold_time_and_one_frame_at_least() -> None:
    times = [(0.0, True), (0.5, False), (1.0, False), (1.1, False), (5.0, False)]
    assert filtered(times) == [True, True, True, False, False]
    assert filtered(times, hold=0.0) == [True, True, False, False, False]
    assert filtered([(0.0, True), (30.0, False), (30.1, False)]) == [True, True, False]
    # A file that begins again holds from there, and not for ever.
    again = [(60.0, True), (0.0, False), (0.5, False), (1.5, False)]
    assert filtered(again) == [True, True, True, False]
    # Pictures in a folder do not follow one another.
    assert filtered(times, name="a.png") == [True, False, False, False, False]


def test_a_result_without_a_label_map_is_black() -> None:
    options = Privacy(blur=("road",))
    for labels in (np.empty((0, 0), np.uint8), np.zeros((24, 64), np.uint8)):
        result = still_result(np.zeros((48, 64), np.uint8))
        result.frame[...], result.labels = 200, labels
        PrivacyFilter(Privacy(), result.classes, [StillSource()]).apply(result)
        assert result.frame.all()
        PrivacyFilter(options, result.classes, [StillSource()]).apply(result)
        assert not result.frame.any()


def test_a_frame_that_cannot_be_changed_is_replaced() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    locked, mirrored = noise.copy(), noise[:, ::-1]
    locked.flags.writeable = False
    for kept in (locked, mirrored):
        result = still_result(np.ones((48, 64), np.uint8), frame=kept)
        PrivacyFilter(Privacy(blur=("road",)), result.classes, [StillSource()]).apply(result)
        assert (result.frame != kept).any(2).mean() > 0.9


def test_a_zone_is_black_on_its_source_alone(tmp_path: Path) -> None:
    path = tmp_path / "a zone.json"
    path.write_text('{"polygons": [[[0.1, 0.2], [0.8, 0.3], [0.4, 0.9]]]}')
    options = Privacy(cover=(f"{path} on 1",))
    sources = [StillSource(), StillSource(index=1)]
    results = [still_result(np.zeros((48, 64), np.uint8), camera=camera) for camera in (0, 1)]
    privacy = PrivacyFilter(options, results[0].classes, sources)
    for result in results:
        result.frame[...] = 7
        privacy.cover(result)
    assert (results[0].frame == 7).all()
    zone = load_zone(path).mask(48, 64)
    assert np.array_equal(results[1].frame, np.where(zone, 0, 7)[..., None].repeat(3, 2))
    with pytest.raises(UsageError, match="on source 1; the last one is 0"):
        PrivacyFilter(options, results[0].classes, sources[:1])


def test_the_network_does_not_see_a_zone(tmp_path: Path, bright_network: Path) -> None:
    path = tmp_path / "zone.json"
    path.write_text('{"polygons": [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]}')

    def frames() -> Iterator[NDArray[np.uint8]]:
        yield np.full((48, 64, 3), 255, np.uint8)

    with edgeseg.load(bright_network) as engine:
        labels = [
            next(iter(stream)).labels
            for options in (StreamOptions(), StreamOptions(cover=(str(path),)))
            for stream in [Stream(frames, engine, options)]
        ]
    half = labels[0].shape[1] // 2
    assert labels[0].all()
    assert not labels[1][:, :half].any()
    assert labels[1][:, half:].all()


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["--blur", "brihgt"], "--blur: expected a class of the network, found 'brihgt'", "bright"),
        (["--pixelate", "bright,sky"], "--pixelate: expected a class", "background, bright"),
        (["--blur", "bright", "--pixelate", "bright"], "bright would be blurred and", "one of"),
        (["--cover", "none.json"], "none.json", None),
        (["--cover", ""], "expected the file of a zone", None),
    ],
)
def test_what_does_not_exist_is_refused_before_the_stream_begins(
    arguments: list[str], says: str, hint: str | None, edgeseg: Any, bright_network: Path
) -> None:
    common = ("--source", "test:64x48?frames=1", "--no-window", "--json")
    outcome = edgeseg("stream", str(bright_network), *common, *arguments)
    assert outcome.code == 2, outcome.err
    assert says in outcome.document["error"]["message"]
    assert hint is None or hint in outcome.document["error"]["hint"]


def test_overlays_of_pictures_are_obscured_too(
    edgeseg: Any, bright_network: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "a.png"
    cv2.imwrite(str(picture), secret_frame(0))
    for arguments, shown in (([], True), (["--blur", "bright"], False)):
        out = tmp_path / f"out{len(arguments)}"
        common = ("--opacity", "0", "--out", str(out), "--json")
        outcome = edgeseg("infer", str(bright_network), str(picture), *common, *arguments)
        assert outcome.code == 0, outcome.err
        overlay = np.asarray(cv2.imread(str(out / "a.overlay.png")), np.uint8)
        assert shows_secret(overlay) is shown
    wrong = edgeseg("infer", str(bright_network), str(picture), *common, "--pixelate", "x")
    assert wrong.code == 2


def test_snapshots_of_the_window_are_drawn_from_the_obscured_frame(tmp_path: Path) -> None:
    labels = (secret_frame(0).mean(2) > 127).astype(np.uint8)
    result = still_result(labels, frame=secret_frame(0))
    PrivacyFilter(Privacy(blur=("road",)), result.classes, [StillSource()]).apply(result)
    path, _ = save_snapshot(tmp_path, result.draw(View(bare=True)), result.mask())
    assert not shows_secret(np.asarray(cv2.imread(str(path)), np.uint8))
