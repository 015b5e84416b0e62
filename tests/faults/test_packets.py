"""Clips of the packets of a real RTSP camera that dies in the middle."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.engines.base import Engine
from edgeseg.stream import Sink, SourceLimits, Stream, StreamResult, parse_source, run
from edgeseg.stream.alerts import ClipOptions, Clips, parse_rule

QUICK = SourceLimits(open_s=20, read_s=20, stalled_s=20, backoff_s=(0.05,))


class Script(Sink):
    """An alert at frame 45, the end of the camera at 56, and of the stream at 12 of its return."""

    def __init__(self, camera: Any, number: Callable[..., int], clips: Clips) -> None:
        self.stop: Callable[[], None]
        self.alert = 0
        self.last = [0, 0]
        self._camera, self._number, self._clips = camera, number, clips

    def write(self, result: StreamResult) -> None:
        seen, again = self._number(result.frame), min(1, result.reconnects)
        before, self.last[again] = self.last[again], seen
        if not self.alert and seen >= 45:
            self.alert = seen
            self._clips.begin(parse_rule("bright > 0%"), result)
        if not again and before < 56 <= seen:
            self._camera.kill()
            self._camera.switch_on()
        if again and seen >= 12:
            self.stop()


def slices(path: Path) -> list[bytes]:
    """The slices of the pictures of H.264 in MP4, as the camera encoded them."""
    av = pytest.importorskip("av")
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            data = bytes(packet)
            while data:
                length = int.from_bytes(data[:4], "big")
                unit, data = data[4 : 4 + length], data[4 + length :]
                if unit[0] & 31 in (1, 5):
                    found.append(unit)
    return found


def test_clips_have_what_an_rtsp_camera_sent_before_its_death_and_after(
    rtsp_camera: Any,
    numbered: Path,
    number: Callable[..., int],
    grey_engine: Engine,
    tmp_path: Path,
) -> None:
    clips = Clips(tmp_path, ClipOptions(clip_before=0.4, clip_after=60), overlay=False)
    script = Script(rtsp_camera, number, clips)
    stream = Stream(replace(parse_source(rtsp_camera.url), limits=QUICK), grey_engine)
    script.stop = stream.stop
    run(stream, [script, clips])
    rest, first = sorted(tmp_path.iterdir())
    assert rest.stem == f"{first.stem}-0001"
    sent = slices(numbered)
    begins = []
    for path, last in zip((first, rest), script.last, strict=True):
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        shown = []
        while (read := capture.read())[0]:
            shown.append(number(np.asarray(read[1], np.uint8)))
        begins.append(shown[0])
        assert shown == list(range(shown[0], shown[-1] + 1))
        assert shown[-1] >= last
        assert slices(path) == sent[shown[0] : shown[-1] + 1]
    assert begins[0] % 5 == begins[1] % 5 == 0, "key frames"
    assert begins[0] <= script.alert - 5
    (report,) = clips.reports()
    assert (report.lost, report.errors) == (0, 0)
