"""Pipelines in a process of the system's Python, whose OpenCV has GStreamer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest

from edgeseg.errors import OpenFailed
from edgeseg.sources import gstreamer
from edgeseg.sources.capture import open_frames
from edgeseg.sources.spec import parse_source

ROOT = Path(__file__).parents[2]
SYSTEM = "/usr/bin/python3"
SYSTEM_PACKAGES = "/usr/lib/python3/dist-packages"
HERE = str(Path(pydantic.__file__).parents[1])
"""Where pydantic comes from; behind the system's packages, so that cv2 and NumPy are theirs."""

PROBE = "import cv2; print(cv2.getBuildInformation())"

READ_EACH = """
import json, logging, sys, time
from dataclasses import replace
from edgeseg.errors import EdgesegError
from edgeseg.sources.capture import open_frames
from edgeseg.sources.spec import SourceLimits, parse_source
logging.basicConfig(level=logging.DEBUG)
for source in json.loads(sys.argv[1]):
    spec = replace(parse_source(source), limits=SourceLimits(open_s=1.5, read_s=1.0))
    told = {"shapes": [], "means": []}
    try:
        frames = open_frames(spec)
        while len(told["shapes"]) < 120 and (frame := frames.read()) is not None:
            told["shapes"].append(frame.shape)
            told["means"].append([round(float(x)) for x in frame.mean(axis=(0, 1))])
        frames.close()
    except EdgesegError as error:
        told |= {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    print(json.dumps(told), flush=True)
"""

RECONNECT = """
import json, logging, sys
from dataclasses import replace
from edgeseg.stream.reader import Reader
from edgeseg.sources.spec import SourceLimits, parse_source
spec = replace(parse_source(sys.argv[1]), limits=SourceLimits(backoff_s=(0.01,)))
reader = Reader(spec, realtime=True)
reader.start()
while reader.reconnects < 2 and not reader.over:
    with reader.slot.changed:
        reader.slot.changed.wait(1.0)
    reader.slot.take()
print(json.dumps([reader.reconnects, reader.state, reader.close(30)]))
"""


def in_system_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), SYSTEM_PACKAGES, HERE])
    return subprocess.run(
        [SYSTEM, "-c", code, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def system() -> None:
    """Skips where the system's OpenCV has no GStreamer or is of another Python."""
    if not Path(SYSTEM).exists():
        pytest.skip(f"no {SYSTEM}")
    asked = in_system_python("import sys; print(sys.version_info[:2])")
    if asked.stdout.strip() != str(sys.version_info[:2]):
        pytest.skip(f"{SYSTEM} is of another version: the core's packages do not fit it")
    if "GStreamer:                   YES" not in in_system_python(PROBE).stdout:
        pytest.skip(f"the OpenCV of {SYSTEM} has no GStreamer (apt install python3-opencv)")


def read_each(*sources: str) -> list[dict[str, Any]]:
    done = in_system_python(READ_EACH, json.dumps(sources))
    assert done.returncode == 0, done.stderr
    assert "QXZ" not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("system")
@pytest.mark.parametrize("sink", ["", " ! appsink drop=true max-buffers=1 sync=false name=s"])
def test_every_format_becomes_bgr(sink: str) -> None:
    formats = ("BGR", "RGB", "BGRx", "NV12", "I420", "YUY2", "GRAY8", "GRAY16_LE")
    base = (
        "gst:videotestsrc is-live=true num-buffers=3 pattern=red ! video/x-raw,width=64,height=48"
    )
    told = read_each(*(f"{base},format={each}{sink}" for each in formats))
    for each, frames in zip(formats, told, strict=True):
        assert frames["shapes"][:1] == [[48, 64, 3]], (each, frames)
        blue, green, red = frames["means"][0]
        if each.startswith("GRAY"):
            assert max(blue, green, red) - min(blue, green, red) <= 2, (each, frames)
        else:
            assert (blue < 6, green < 6, red > 249) == (True, True, True), (each, frames)


@pytest.mark.usefixtures("system")
def test_what_does_not_work_is_said_and_never_hangs() -> None:
    secret = "gst:rtspsrc location=rtsp://me:QXZ@127.0.0.1:1/s user-pw=QXZ ! decodebin"
    caps = "application/x-rtp,media=video,encoding-name=JPEG,clock-rate=90000,payload=26"
    nothing, missing, csi, syntax, link, refused = read_each(
        f"gst:udpsrc port=0 ! {caps} ! rtpjpegdepay ! jpegdec",
        "gst:videotestsrc ! nosuchelement ! appsink",
        "csi:0",
        "gst:videotestsrc bogus=1 ! appsink",
        "gst:videotestsrc ! video/x-raw,format=I420 ! audioconvert ! appsink",
        secret,
    )
    assert "delivered nothing in 1.5 s" in nothing["message"]
    assert "no element nosuchelement" in missing["message"]
    assert "gst-inspect-1.0 nosuchelement" in missing["hint"]
    if "nvarguscamerasrc" in csi["message"]:  # that is, not on a Jetson
        assert "CSI cameras need a Jetson" in csi["message"]
    for told in (syntax, link, refused):
        assert told["error"] == "OpenFailed"
        assert "gst-launch-1.0" in told["hint"]


@pytest.mark.usefixtures("system")
def test_a_live_pipeline_that_ends_is_opened_again() -> None:
    pipeline = "gst:videotestsrc num-buffers=2 ! video/x-raw,width=64,height=48 ! appsink"
    done = in_system_python(RECONNECT, pipeline)
    reconnects, _, closed = json.loads(done.stdout)
    assert (reconnects >= 2, closed) == (True, True), done.stderr


@pytest.mark.usefixtures("system")
def test_a_file_is_read_whole_and_its_size_may_change(tmp_path: Path) -> None:
    for name, size in (("a", (320, 240)), ("b", (160, 128))):
        make = (
            f"gst-launch-1.0 -q videotestsrc num-buffers=30 ! video/x-raw,width={size[0]},"
            f"height={size[1]},framerate=25/1 ! jpegenc ! multifilesink location={name}%02d.jpg"
        )
        if subprocess.run(make.split(), cwd=tmp_path, check=False).returncode:
            pytest.skip("gst-launch-1.0 or its plugins are not here")
    parts = sorted(tmp_path.glob("*.jpg"))
    (tmp_path / "all.mjpeg").write_bytes(b"".join(part.read_bytes() for part in parts))
    source = f"gst:filesrc location={tmp_path}/all.mjpeg ! jpegparse ! jpegdec"
    assert not parse_source(source).live
    (told,) = read_each(source)
    assert told["shapes"] == [[240, 320, 3]] * 30 + [[128, 160, 3]] * 30


def test_opencv_without_gstreamer_is_said_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gstreamer.cv2, "getBuildInformation", lambda: "  GStreamer:   NO\n")
    for source in ("csi:0", "gst:videotestsrc user-pw=QXZ"):
        with pytest.raises(OpenFailed, match="built without GStreamer") as failed:
            open_frames(parse_source(source))
        assert "--system-site-packages" in str(failed.value.hint)
        assert "QXZ" not in f"{failed.value}{failed.value.hint}"


def test_without_gst_inspect_nothing_is_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gstreamer.shutil, "which", lambda _: None)
    assert gstreamer.missing_elements(["nosuchelement"]) == ()


SIZE_CHANGE = """
import json, logging, sys, threading, time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import cv2, numpy as np
from edgeseg.sources.capture import open_frames
from edgeseg.sources.spec import SourceLimits, parse_source

size = [(48, 64)]
class Camera(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(2000):
            picture = np.full((*size[0], 3), 10 + number % 240, np.uint8)
            data = cv2.imencode(".jpg", picture)[1].tobytes()
            head = "--frame\\r\\nContent-Type: image/jpeg\\r\\n"
            head += f"Content-Length: {len(data)}\\r\\n\\r\\n"
            self.wfile.write(head.encode() + data + b"\\r\\n")
            time.sleep(0.005)
    def log_message(self, *_): ...

server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
server.handle_error = lambda *_: None
threading.Thread(target=server.serve_forever, daemon=True).start()
spec = replace(parse_source(f"http://127.0.0.1:{server.server_port}/mjpeg"),
               limits=SourceLimits(stalled_s=0.2))
logging.basicConfig()
frames = open_frames(spec)
shapes = []
while (frame := frames.read()) is not None and len(shapes) < 1000:
    shapes.append(frame.shape[:2])
    if len(shapes) == 10:
        size[0] = (96, 128)
frames.close()
again = open_frames(spec)
print(json.dumps([len(shapes), sorted(set(shapes)), again.read().shape[:2]]))
again.close()
"""


@pytest.mark.usefixtures("system")
def test_a_network_camera_that_changes_its_size_is_not_shown_frozen() -> None:
    """OpenCV 4.6 repeats the last frame of the old size for ever, with ``ok=True``."""
    without_pyav = "import sys; sys.modules['av'] = None\n"
    done = in_system_python(without_pyav + SIZE_CHANGE)
    shown, before, after = json.loads(done.stdout)
    assert (before, after) == ([[48, 64]], [96, 128])
    assert shown < 1000, "the stream went on with a frame that stood still"
    assert "the picture stands still" in done.stderr
