"""V4L2 by ioctl: the layout of the kernel's header, and a device that answers as drivers do."""

import errno
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseg.sources import v4l2
from edgeseg.sources.v4l2 import Camera, cameras, modes

STRUCTS = {
    "v4l2_capability": v4l2.Capability,
    "v4l2_fmtdesc": v4l2.FormatDescription,
    "v4l2_frmsizeenum": v4l2.FrameSize,
    "v4l2_frmivalenum": v4l2.FrameInterval,
}
NAMES = {
    "VIDIOC_QUERYCAP": v4l2.QUERYCAP,
    "VIDIOC_ENUM_FMT": v4l2.ENUM_FMT,
    "VIDIOC_ENUM_FRAMESIZES": v4l2.ENUM_FRAMESIZES,
    "VIDIOC_ENUM_FRAMEINTERVALS": v4l2.ENUM_FRAMEINTERVALS,
    "V4L2_CAP_VIDEO_CAPTURE": v4l2.CAP_VIDEO_CAPTURE,
    "V4L2_CAP_VIDEO_CAPTURE_MPLANE": v4l2.CAP_VIDEO_CAPTURE_MPLANE,
    "V4L2_CAP_DEVICE_CAPS": v4l2.CAP_DEVICE_CAPS,
    "V4L2_BUF_TYPE_VIDEO_CAPTURE": v4l2.VIDEO_CAPTURE,
    "V4L2_FRMSIZE_TYPE_DISCRETE": v4l2.DISCRETE,
    "V4L2_FRMIVAL_TYPE_DISCRETE": v4l2.DISCRETE,
}
MEMBERS = {"is": "discrete"}  # a union without a name in C: its first member stands there


def test_layout_and_numbers_are_those_of_the_kernels_header(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("no C compiler, or no linux/videodev2.h")
    expected = dict(NAMES)
    lines = [f'printf("{name} %lu\\n", (unsigned long){name});' for name in NAMES]
    for c_name, struct in STRUCTS.items():
        lines.append(f'printf("{c_name} %zu\\n", sizeof(struct {c_name}));')
        expected[c_name] = v4l2.sizeof(struct)
        for field in struct._fields_:
            if field[0] == "reserved":  # headers take from it as they grow
                continue
            member = MEMBERS.get(field[0], field[0])
            lines.append(
                f'printf("{c_name}.{member} %zu\\n", offsetof(struct {c_name}, {member}));'
            )
            expected[f"{c_name}.{member}"] = getattr(struct, field[0]).offset
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stdio.h>\n#include <stddef.h>\n#include <linux/videodev2.h>\n"
        f"int main(void) {{ {' '.join(lines)} return 0; }}\n"
    )
    subprocess.run([compiler, str(source), "-o", str(tmp_path / "layout")], check=True)
    told = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True)
    found = {name: int(value) for name, value in map(str.split, told.stdout.splitlines())}
    assert found == expected


SIZES = {b"MJPG": [(1280, 720), (640, 480)], b"YUYV": [(640, 480)]}
RATES = {(1280, 720): [(1, 30), (1, 15)], (640, 480): [(1001, 30000)]}


class Device:
    """Answers ``ioctl`` as a UVC camera does."""

    def __init__(self, device_caps: int = 1, *, stepwise: bool = False) -> None:
        self._caps = device_caps
        self._stepwise = stepwise
        self._answers: dict[int, Callable[[bytearray], bytes]] = {
            v4l2.QUERYCAP: self._capability,
            v4l2.ENUM_FMT: self._format,
            v4l2.ENUM_FRAMESIZES: self._size,
            v4l2.ENUM_FRAMEINTERVALS: self._interval,
        }

    def ioctl(self, _descriptor: int, request: int, argument: bytearray) -> int:
        try:
            argument[:] = self._answers[request](argument)
        except IndexError:
            raise OSError(errno.EINVAL, "the end") from None
        return 0

    def _capability(self, _: bytearray) -> bytes:
        whole = 0x80000000 | 0x00800001  # of all nodes together: capture and metadata
        return bytes(v4l2.Capability(capabilities=whole, device_caps=self._caps))

    def _format(self, data: bytearray) -> bytes:
        asked = v4l2.FormatDescription.from_buffer_copy(data)
        assert asked.type == 1
        asked.pixelformat = list(SIZES)[asked.index]
        return bytes(asked)

    def _size(self, data: bytearray) -> bytes:
        asked = v4l2.FrameSize.from_buffer_copy(data)
        numbers = getattr(asked, "is")
        if self._stepwise:
            asked.type = [3][asked.index]
            numbers.stepwise = (16, 1920, 8, 16, 1080, 8)
        else:
            asked.type = 1
            numbers.discrete = SIZES[asked.pixel_format][asked.index]
        return bytes(asked)

    def _interval(self, data: bytearray) -> bytes:
        asked = v4l2.FrameInterval.from_buffer_copy(data)
        rates = RATES.get((asked.width, asked.height), [])
        asked.type, getattr(asked, "is").discrete = 1, rates[asked.index]
        return bytes(asked)


@pytest.fixture
def node(tmp_path: Path) -> str:
    path = tmp_path / "video0"
    path.touch()
    return str(path)


def test_modes_are_listed_with_their_best_rate(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v4l2, "ioctl", Device().ioctl)
    assert list(map(str, modes(node))) == [
        "1280x720@30 MJPG",
        "640x480@29.97 MJPG",
        "640x480@29.97 YUYV",
    ]


def test_a_range_of_sizes_is_told_by_its_largest(
    node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v4l2, "ioctl", Device(stepwise=True).ioctl)
    assert [(mode.size, mode.fps) for mode in modes(node)] == [((1920, 1080), None)] * 2


@pytest.mark.parametrize(
    ("own", "video"), [(0x1, True), (0x1000, True), (0x00800000, False), (0x2, False)]
)
def test_a_node_is_judged_by_its_own_capabilities(
    own: int, video: bool, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v4l2, "ioctl", Device(own).ioctl)
    assert v4l2.captures_video(node) is video


def test_what_is_no_v4l2_device_cannot_tell(tmp_path: Path) -> None:
    assert v4l2.captures_video("/dev/null") is None
    assert v4l2.captures_video(str(tmp_path / "gone")) is None
    with pytest.raises(OSError, match="ioctl") as failed:
        modes("/dev/null")
    assert failed.value.errno == errno.ENOTTY


def test_metadata_nodes_are_no_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    for number in (0, 1, 2, 10):
        (tmp_path / f"dev/video{number}").touch()
    gives = {"video0": True, "video1": False, "video2": None, "video10": True}
    monkeypatch.setattr(
        "edgeseg.sources.v4l2.captures_video", lambda device: gives[Path(device).name]
    )
    assert cameras(tmp_path) == tuple(
        Camera(f"/dev/{name}", "", readable=True) for name in ("video0", "video2", "video10")
    )
