"""Pipelines as text: what they are made of, masked, given a conversion to BGR."""

import pytest

from edgeseg.sources.launch import FILE_SINK, LIVE_SINK, elements, giving_bgr, jetson_camera, masked
from edgeseg.sources.spec import parse_source


@pytest.mark.parametrize(
    ("pipeline", "found"),
    [
        ("videotestsrc ! appsink", "videotestsrc appsink"),
        ("videotestsrc ! video/x-raw,format=GRAY8 ! queue ! queue", "videotestsrc queue"),
        ("v4l2src device=/dev/video0 ! image/jpeg, width=(int) 640 ! jpegdec", "v4l2src jpegdec"),
        ("x ! video/x-raw(memory:NVMM), format = (string) NV12 ! y", "x y"),
        (
            "src name = s tee name=t ! queue t. ! fakesink s.src_0 ! sink",
            "src tee queue fakesink sink",
        ),
        ('filesrc location="a ! b.mkv" ! decodebin', "filesrc decodebin"),
        ("filesrc location='it is' ! decodebin", "filesrc decodebin"),
        ("! video/x-raw !", ""),
    ],
)
def test_elements(pipeline: str, found: str) -> None:
    assert elements(pipeline) == tuple(found.split())


@pytest.mark.parametrize(
    ("pipeline", "shown"),
    [
        ("rtspsrc location=rtsp://me:QXZ@cam/s ! x", "rtspsrc location=rtsp://me:***@cam/s ! x"),
        ("rtspsrc location=rtsp://me:Q@XZ/Q@cam/s", "rtspsrc location=rtsp://me:***@cam/s"),
        ('rtspsrc location="rtsp://me:Q XZ@cam/s"', 'rtspsrc location="rtsp://me:***@cam/s"'),
        ("rtspsrc location=rtsp://QXZ@cam/s", "rtspsrc location=rtsp://***@cam/s"),
        ("rtspsrc user-id=me user-pw=QXZ ! x", "rtspsrc user-id=me user-pw=*** ! x"),
        ('rtspsrc user-pw = "Q X Z" ! x', "rtspsrc user-pw=*** ! x"),
        ("rtspsrc user-pw='Q ! X' ! x", "rtspsrc user-pw=*** ! x"),
        (r"rtspsrc user-pw=Q\ XZ ! x", "rtspsrc user-pw=*** ! x"),
        ("srtsrc passphrase=QXZ", "srtsrc passphrase=***"),
        ('souphttpsrc extra-headers="h,a=QXZ"', "souphttpsrc extra-headers=***"),
        (
            "curlhttpsrc location=http://c/?token=QXZ&x=1",
            "curlhttpsrc location=http://c/?token=***&x=1",
        ),
        (
            "curlhttpsrc location=http://c/?sid=QXZ&x=1",
            "curlhttpsrc location=http://c/?sid=***&x=1",
        ),
        ('rtspsrc user-pw="QXZ ! x', "***"),
        ("rtspsrc user-pw=Q'XZ ! x", "***"),
    ],
)
def test_masking(pipeline: str, shown: str) -> None:
    assert masked(pipeline) == shown
    spec = parse_source(f"gst:{pipeline}")
    assert spec.label == f"gst:{shown}"
    assert spec.target == pipeline
    assert "X" not in repr(spec).replace("XZ/", "")


@pytest.mark.parametrize(
    ("pipeline", "live", "given"),
    [
        ("a", True, f"a ! videoconvert ! video/x-raw,format=BGR ! {LIVE_SINK}"),
        ("a !", False, f"a ! videoconvert ! video/x-raw,format=BGR ! {FILE_SINK}"),
        ("a ! appsink", True, "a ! videoconvert ! video/x-raw,format=BGR ! appsink"),
        (
            "a ! appsink drop=true name=s",
            True,
            "a ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true",
        ),
        (
            "a ! appsink name=appsink7",
            True,
            "a ! videoconvert ! video/x-raw,format=BGR ! appsink name=appsink7",
        ),
        ("appsink name=s a ! s.", True, "appsink name=s a ! s."),
    ],
)
def test_bgr_comes_out(pipeline: str, live: bool, given: str) -> None:
    assert giving_bgr(pipeline, live=live) == given


def test_a_jetson_camera_is_read_as_jetpack_documents_it() -> None:
    assert jetson_camera(1, (1280, 720), 59.94) == (
        "nvarguscamerasrc sensor-id=1 ! "
        "video/x-raw(memory:NVMM),width=1280,height=720,framerate=2997/50 ! nvvidconv ! "
        "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )
    assert "(memory:NVMM) ! nvvidconv" in jetson_camera(0, None, None)
