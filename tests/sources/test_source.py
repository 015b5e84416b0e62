"""What users write as a source, and that nothing of a password gets through."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeseg.errors import UsageError
from edgeseg.sources.spec import SourceSpec, parse_source, with_format
from edgeseg.stream.sinks.destination import parse_destination


@pytest.mark.parametrize(
    ("text", "kind", "target", "label", "live"),
    [
        (0, "camera", "/dev/video0", "camera:0", True),
        ("2", "camera", "/dev/video2", "camera:2", True),
        ("camera:12", "camera", "/dev/video12", "camera:12", True),
        ("/dev/video3", "camera", "/dev/video3", "/dev/video3", True),
        ("/dev/v4l/by-id/usb-cam", "camera", "/dev/v4l/by-id/usb-cam", None, True),
        ("csi:1", "csi", "1", "csi:1", True),
        ("gst:videotestsrc ! appsink", "gst", "videotestsrc ! appsink", None, True),
        ("gst: filesrc location=a ! x", "gst", "filesrc location=a ! x", None, False),
        ("rtsp://cam/live", "url", "rtsp://cam/live", None, True),
        ("RTSPS://cam:322/live", "url", "rtsps://cam:322/live", "rtsps://cam:322/live", True),
        ("http://cam/mjpeg", "url", "http://cam/mjpeg", None, True),
        ("http://[::1]:8080/mjpeg", "url", "http://[::1]:8080/mjpeg", None, True),
        ("https://host/drive.MP4?x=1", "url", "https://host/drive.MP4?x=1", None, False),
        ("drive.mkv", "file", "drive.mkv", None, False),
        (Path("4"), "file", "4", None, False),
        ("frames/*.png", "pictures", "frames/*.png", None, False),
        ("one.JPG", "pictures", "one.JPG", None, False),
        ("test:", "test", "", None, False),
    ],
)
def test_forms(text: Any, kind: str, target: str, label: str | None, live: bool) -> None:
    spec = parse_source(text)
    assert (spec.kind, spec.target, spec.live) == (kind, target, live)
    assert str(spec) == spec.label == (label or str(text).replace("gst: ", "gst:"))


def test_a_folder_is_pictures_and_a_home_is_found(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "frames").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_source("~/frames") == SourceSpec("pictures", str(tmp_path / "frames"), "~/frames")


@pytest.mark.parametrize("name", ["~$clip.mp4", "~nobody-of-this-name/clip.mp4"])
def test_a_file_whose_name_looks_like_a_home(name: str) -> None:
    assert parse_source(name).target == name
    assert parse_destination(f"{name}.m3u8").playlist == Path(f"{name}.m3u8")
    assert parse_destination("~/a.m3u8").playlist == Path.home() / "a.m3u8"


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    path = tmp_path / "drive[1].mkv"
    path.touch()
    assert parse_source(path).kind == "file"


def test_sizes_and_rates() -> None:
    assert parse_source("test:") == SourceSpec("test", "", "test:")
    assert parse_source("test:320x240").size == (320, 240)
    assert parse_source("test:@12.5").fps == 12.5
    spec = parse_source("test:640x480@25?frames=100")
    assert (spec.size, spec.fps, spec.frames) == ((640, 480), 25.0, 100)
    camera = parse_source("camera:1:1280x720@30")
    assert (camera.target, camera.size, camera.fps) == ("/dev/video1", (1280, 720), 30.0)
    csi = parse_source("csi:0:1920x1080@59.94")
    assert (csi.kind, csi.target, csi.size, csi.fps) == ("csi", "0", (1920, 1080), 59.94)


@pytest.mark.parametrize(
    "source", ["0", "csi:0", "test:", "/dev/video2", "camera:0:1280x720", "camera:0:@30"]
)
def test_a_format_is_asked_of_cameras_and_the_pattern(source: str) -> None:
    spec = with_format(parse_source(source), (1280, 720), 30)
    assert (spec.size, spec.fps) == ((1280, 720), 30)
    assert with_format(spec) is spec
    assert (spec.label, spec.target) == (parse_source(source).label, parse_source(source).target)


@pytest.mark.parametrize(
    ("source", "size", "fps", "said"),
    [
        ("rtsp://user:secret@cam/live", (640, 480), None, r"rtsp://user:\*\*\*@cam/live: size"),
        ("drive.mkv", None, 30, "drive.mkv: size"),
        ("*.png", (640, 480), None, "not of this source"),
        ("gst:videotestsrc", (640, 480), None, "gst:videotestsrc: size"),
        ("camera:0:1280x720", (640, 480), None, "another size or rate"),
        ("csi:0:@60", None, 30, "another size or rate"),
        ("0", (8, 8), None, "16 to 16384"),
        ("0", None, 0, "more than 0"),
    ],
)
def test_a_format_that_cannot_be_had_is_an_error(
    source: str, size: tuple[int, int] | None, fps: float | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as failed:
        with_format(parse_source(source), size, fps)
    assert "secret" not in f"{failed.value}{failed.value.hint}"


def test_newest_frame_counts_for_cameras_and_the_test_pattern() -> None:
    realtime = {text: parse_source(text).realtime for text in ("0", "rtsp://c/", "test:", "a.mkv")}
    assert realtime == {"0": True, "rtsp://c/": True, "test:": True, "a.mkv": False}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("camera:front", "camera:0"),
        ("camera:0:720p", "camera:0"),
        ("csi:left", "csi:0"),
        ("gst:", "no element"),
        ("gst: ! video/x-raw", "no element"),
        ("test:big", "test:640x480@25"),
        ("test:?frames=0", "no frames"),
        ("test:8x8", "16 to 16384"),
        ("test:99999x16", "16 to 16384"),
        ("test:@0", "more than 0"),
        ("ftp://host/a.mkv", "ftp://"),
        ("rtsp:///live", "no host"),
        ("rtsp://cam:99999/live", "port"),
        ("rtsp://cam:port/live", "port"),
        ("rtsp://[::1/live", "no host"),
    ],
)
def test_what_cannot_be_parsed_is_said(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        parse_source(text)


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("rtsp://user:pw@cam:554/s?x=1", "rtsp://user:***@cam:554/s?x=1"),
        ("rtsp://user:p%40w@cam/s", "rtsp://user:***@cam/s"),
        ("rtsp://user:p@w@cam/s", "rtsp://user:***@cam/s"),
        ("rtsp://sometoken@cam/s", "rtsp://***@cam/s"),
        ("rtsp://:pw@cam/s", "rtsp://:***@cam/s"),
        ("http://cam/v?user=me&password=pw&x=1", "http://cam/v?user=me&password=***&x=1"),
        ("http://cam/v?loginpas=pw&access_token=pw", "http://cam/v?loginpas=***&access_token=***"),
        ("rtsp://cam/user=me_password=pw_channel=1.sdp", "rtsp://cam/user=me_password=***"),
        ("rtsp://cam/stream@1", "rtsp://cam/stream@1"),
        ("http://c/?pw=pw&p=pw&sid=pw&jwt=pw", "http://c/?pw=***&p=***&sid=***&jwt=***"),
        ("http://c/?code=123&credential=pw", "http://c/?code=***&credential=***"),
        ("http://c/?who=pw&width=640&zz=12", "http://c/?who=***&width=640&zz=12"),
        ("http://c/p=pw/sid=pw/live", "http://c/p=***/sid=***/live"),
        ("http://c/#id_token=pw", "http://c/#id_token=***"),
        ("rtsps://nvr:7441/AbCdEf1234pw567890?enableSrtp", "rtsps://nvr:7441/***?enableSrtp"),
        ("http://c/9f86d081884c7d659a2f/live.m3u8", "http://c/***/live.m3u8"),
        ("http://c/123e4567-e89b-12d3-a456-426614174000", "http://c/***"),
        ("rtsp://c/Streaming/Channels/101", "rtsp://c/Streaming/Channels/101"),
        ("rtsp://c/h264Preview_01_main", "rtsp://c/h264Preview_01_main"),
        ("rtsp://c/front_left_door_2024/main1080p", "rtsp://c/front_left_door_2024/main1080p"),
    ],
)
def test_masking(url: str, label: str) -> None:
    spec = parse_source(url)
    assert spec.label == label
    assert spec.target == url.replace("p@w", "p%40w"), "FFmpeg wants it percent-encoded"
    assert "pw" not in repr(spec).replace("?pw=***", "")


def leaks(password: str, text: str) -> bool:
    """Whether three characters in a row of the password stand in the text."""
    return any(password[i : i + 3] in text for i in range(len(password) - 2))


def seen(url: str) -> str:
    """All that anyone may see of a source."""
    try:
        spec = parse_source(url)
    except UsageError as error:
        cause = f"{error.__cause__!r}{error.__context__!r}"
        return f"{error}{error.hint}{cause}"
    return f"{spec!r}{spec}{spec.label}"


# Letters that no host, user, path or message here has.
passwords = st.text("QXZ7/?#@:%[]+ ", min_size=3, max_size=12)


@settings(deadline=None)
@given(passwords, st.sampled_from(["rtsp", "http", "rtsps"]))
@example("QXZ/QXZ", "rtsp")
@example("777/ZZZ", "rtsp")
@example("QX@ZXZ/ZZZ", "rtsp")
@example("QXZ?ZZZ", "rtsp")
@example("QXZ#ZZZ", "rtsp")
def test_no_part_of_a_password_is_ever_shown(password: str, scheme: str) -> None:
    for written in (password, quote(password, safe="")):
        shown = seen(f"{scheme}://user:{written}@camera/live")
        runs = [run for run in _alnum_runs(password) if len(run) >= 3]
        assert not any(leaks(run, shown) for run in runs), shown


def test_the_check_for_leaks_finds_one() -> None:
    assert leaks("QXZ7", "port could not be cast from 'QXZ'")
    assert not leaks("QXZ7", "rtsp://user:***@camera/live")


def _alnum_runs(password: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in password).split()
