"""Credentials from the environment and from files: who gets which, and who sees them."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from edgeseg.engines.base import Engine
from edgeseg.errors import AuthFailed, UsageError
from edgeseg.sources.capture import open_frames
from edgeseg.sources.credentials import PASSWORD, USER, Credentials, with_credentials
from edgeseg.sources.spec import parse_source
from edgeseg.stream import Stream, StreamOptions

SECRET = "QXZ@:/?#%40w é"
ENVIRONMENT = {USER: "us er", PASSWORD: SECRET}


def given(target: str) -> tuple[str | None, str | None]:
    """User and password of a URL, as RFC 3986 reads it."""
    parts = urlsplit(target)
    return tuple(
        None if each is None else unquote(each) for each in (parts.username, parts.password)
    )  # type: ignore[return-value]


def netrc_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "cameras.netrc"
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("url", ["rtsp://cam:554/live?x=1", "http://[::1]:80/mjpeg", "rtsps://cam"])
def test_the_environment_fills_in_what_a_url_lacks(url: str) -> None:
    spec = with_credentials(parse_source(url), environ=ENVIRONMENT)
    assert given(spec.target) == ("us er", SECRET)
    assert spec.target.endswith(url.partition("://")[2])
    assert spec.label == url
    assert "QXZ" not in f"{spec!r}{spec}"
    assert urlsplit(spec.target).hostname == urlsplit(url).hostname


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://me:own@cam/live",
        "rtsp://token@cam/",
        "http://h/drive.mp4?x=1",
        "0",
        "test:",
        "a.mkv",
    ],
)
def test_nobody_else_gets_them(source: str) -> None:
    spec = parse_source(source)
    assert with_credentials(spec, environ=ENVIRONMENT) is spec


def test_without_any_the_source_stays() -> None:
    spec = parse_source("rtsp://cam/live")
    assert with_credentials(spec, environ={}) is spec


@pytest.mark.parametrize(("there", "absent"), [(USER, PASSWORD), (PASSWORD, USER)])
def test_one_variable_without_the_other(there: str, absent: str) -> None:
    with pytest.raises(UsageError, match=f"{there} is set and {absent} is not") as failed:
        with_credentials(parse_source("rtsp://cam/live"), environ={there: "QXZ"})
    assert "QXZ" not in f"{failed.value}{failed.value.hint}"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("rtsp://cam:8554/live", "QXZ-port"),
        ("rtsp://CAM/live", "QXZ host"),
        ("http://cam:99/live", "QXZ host"),
        ("rtsp://[::1]:554/live", "QXZ6"),
        ("rtsp://other/live", "QXZ-default"),
    ],
)
def test_a_file_names_hosts_and_ports(url: str, password: str, tmp_path: Path) -> None:
    file = netrc_file(
        tmp_path,
        'machine cam login me password "QXZ host"\n'
        "machine cam:8554 login me password QXZ-port\n"
        "machine [::1] login me password QXZ6\n"
        "default login me password QXZ-default\n",
    )
    spec = with_credentials(parse_source(url), file, ENVIRONMENT)
    assert given(spec.target) == ("me", password)


def test_a_host_that_the_file_lacks_gets_the_environments(tmp_path: Path) -> None:
    file = netrc_file(tmp_path, "machine cam login me password QXZ\n")
    spec = with_credentials(parse_source("rtsp://other/"), file, ENVIRONMENT)
    assert given(spec.target) == ("us er", SECRET)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("machine cam login me password QXZ\n", 0o644, "others may read"),
        ("machine cam login me password QXZ\n", 0o620, "others may read"),
        ("machine cam login me QXZ QXZ\n", 0o600, "near line"),
        ("QXZ\n", 0o600, "near line"),
    ],
)
def test_a_file_that_cannot_be_used(text: str, mode: int, said: str, tmp_path: Path) -> None:
    file = netrc_file(tmp_path, text, mode)
    with pytest.raises(UsageError, match=said) as failed:
        with_credentials(parse_source("rtsp://cam/live"), file, {})
    error = failed.value
    assert str(file) in error.message
    assert error.hint
    assert (f"chmod 600 {file}" in error.hint) == (mode != 0o600)
    assert "QXZ" not in f"{error}{error.hint}{error.__cause__!r}{error.__context__!r}"


def test_a_password_is_in_no_repr() -> None:
    assert "QXZ" not in repr(Credentials("me", "QXZ"))


@pytest.fixture
def rtsp() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A camera that wants ``us er`` and ``SECRET`` by digest."""
    server = Path(__file__).with_name("rtsp_server.py")
    started = subprocess.Popen(
        ["/usr/bin/python3", str(server), "us er", SECRET],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert started.stdin is not None
    assert started.stdout is not None
    with started:
        port = started.stdout.readline().strip()
        if not port:
            pytest.skip("no GStreamer RTSP server (apt install gir1.2-gst-rtsp-server-1.0 …)")
        yield f"rtsp://127.0.0.1:{port}/live", started
        started.stdin.close()


def test_rtsp_with_digest_over_tcp(
    rtsp: tuple[str, subprocess.Popen[str]],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    url, server = rtsp
    frames = open_frames(with_credentials(parse_source(url), environ=ENVIRONMENT))
    frame = frames.read()
    frames.close()
    assert frame is not None
    assert frame.shape == (48, 64, 3)
    assert server.stdout is not None
    assert server.stdout.readline().startswith("RTP/AVP/TCP;")
    for environ in ({}, {USER: "us er", PASSWORD: "QXZ"}):
        with pytest.raises(AuthFailed, match="401") as failed:
            open_frames(with_credentials(parse_source(url), environ=environ))
        assert USER in str(failed.value.hint)
        assert "QXZ" not in f"{failed.value}{failed.value.hint}"
    out, err = capfd.readouterr()
    assert "QXZ" not in out + err + caplog.text


def test_a_stream_finds_them_by_itself(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = netrc_file(tmp_path, "machine cam login filed password QXZ")
    with_file = Stream("rtsp://cam/live", engine, StreamOptions(credentials=file))
    monkeypatch.setenv(USER, "told")
    monkeypatch.setenv(PASSWORD, "QXZ")
    with_environment = Stream("rtsp://cam/live", engine)
    users = [given(each.sources[0].spec.target)[0] for each in (with_file, with_environment)]
    assert users == ["filed", "told"]
