"""The peer's side of the protocol: one JSON object per line, requests on stdin, replies on stdout.

The peer says ``{"ready": {"versions": …, "threads": …}}`` first, then answers

- ``{"do": "block", "source": "clip.mp4", "seconds": 2}`` with the figures of that many seconds,
- ``{"do": "live", "source": "rtsp://…", "seconds": 10}`` with when each frame was read and shown,

each with ``busy_seconds`` of CPU and ``peak_mib`` so far, or ``{"error": …}``, until stdin ends.
A peer that loops over frames gives :func:`serve` a generator of :class:`Drawn`; a program with
a loop of its own answers blocks by itself. Standard library alone, besides OpenCV for
hand-written loops and NumPy for the numbers in live pictures.
"""

import contextlib
import importlib.metadata
import itertools
import json
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SKIPPED = 5
"""Frames at the start of a block that are not counted: opening, cold caches, filling queues."""


@dataclass(frozen=True)
class Drawn:
    """A frame whose overlay is drawn.

    Attributes:
        frame: uint8 (H, W, 3) BGR, as it was read.
        taken_at: Seconds of the monotonic clock when it was decoded.
        infer_ms: In the network.
        outside_ms: Spent on it besides, from the decoded frame to the overlay; not waiting.
    """

    frame: Any
    taken_at: float
    infer_ms: float
    outside_ms: float


Frames = Callable[[str], Generator[Drawn, None, None]]
Answer = Mapping[str, Any]


def camera_loop(
    prepare: Callable[[Any], Any], infer: Callable[[Any], Any], draw: Callable[[Any, Any], Any]
) -> Frames:
    """A loop in one thread over what OpenCV reads: frame → tensor → labels → overlay."""
    import cv2

    def frames(source: str) -> Generator[Drawn, None, None]:
        capture = cv2.VideoCapture(source)
        try:
            while (frame := capture.read()[1]) is not None:
                taken_at = time.monotonic()
                tensor = prepare(frame)
                ready = time.monotonic()
                labels = infer(tensor)
                inferred = time.monotonic()
                draw(frame, labels)
                outside = (time.monotonic() - inferred) + (ready - taken_at)
                yield Drawn(frame, taken_at, (inferred - ready) * 1000, outside * 1000)
        finally:
            capture.release()

    return frames


def rate_and_median(program: str, printed: str, rate: str, median: str) -> Answer:
    """Frames per second and the median latency, ms, that two patterns find in what was printed.

    Raises:
        ValueError: They are not there.
    """
    found = re.search(rate, printed), re.search(median, printed)
    if found[0] is None or found[1] is None:
        raise ValueError(f"{program} printed no throughput: {printed[-500:]!r}")
    return {"fps": float(found[0][1]), "infer_ms": [float(found[1][1])]}


def serve(frames: Frames, about: Answer) -> None:
    """Answer questions with what ``frames(source)`` draws, until there are no more."""
    answer_to(
        {
            "block": lambda source, seconds: block(frames, source, seconds),
            "live": lambda source, seconds: live(frames, source, seconds),
        },
        about,
    )


def answer_to(answers: Mapping[str, Callable[..., Answer]], about: Answer) -> None:
    """Answer each question with the function of its name."""
    # Libraries print on fd 1 what they like; from here on that goes to the log.
    with os.fdopen(os.dup(1), "w", buffering=1) as pipe:
        os.dup2(2, 1)
        print(json.dumps({"ready": about}), file=pipe)
        for line in sys.stdin:
            question = json.loads(line)
            before = _cpu_seconds()
            try:
                answer = dict(answers[question.pop("do")](**question))
            except Exception as error:
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {error}"}
            usage = {"busy_seconds": _cpu_seconds() - before, "peak_mib": _peak_mib()}
            print(json.dumps(answer | usage), file=pipe)


def block(frames: Frames, source: str, seconds: float) -> Answer:
    """Figures of a file in the steady state, for ``seconds`` or to its end.

    ``work_ms`` is inference and what is outside of it; ``loop_ms`` is from the decoded frame to
    the overlay, waiting in a queue of the loop's own included.
    """
    drawn: list[Drawn] = []
    loop_ms = []
    with contextlib.closing(frames(source)) as running:
        for _ in itertools.islice(running, SKIPPED):
            pass
        began, cpu = time.monotonic(), _cpu_seconds()
        now = began
        for each in running:
            now = time.monotonic()
            drawn.append(each)
            loop_ms.append((now - each.taken_at) * 1000)
            if now - began >= seconds:
                break
        used = _cpu_seconds() - cpu
    if not drawn:
        raise ValueError(f"{source} ends within its first {SKIPPED} frames")
    return {
        "fps": len(drawn) / (now - began),
        "infer_ms": [each.infer_ms for each in drawn],
        "outside_ms": [each.outside_ms for each in drawn],
        "work_ms": [each.infer_ms + each.outside_ms for each in drawn],
        "loop_ms": loop_ms,
        "cpu_ms": used / len(drawn) * 1000,
    }


def live(frames: Frames, source: str, seconds: float) -> Answer:
    """When each numbered frame of a camera was read and shown, for ``seconds`` from the first."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from frame_numbers import number_of

    numbers, read, shown = [], [], []
    with contextlib.closing(frames(source)) as running:
        for each in running:
            shown.append(time.monotonic())
            read.append(each.taken_at)
            numbers.append(number_of(each.frame))
            if shown[-1] - shown[0] >= seconds:
                break
    return {"numbers": numbers, "read": read, "shown": shown}


def versions(*names: str) -> dict[str, str]:
    """Versions of installed distributions, for ``about``."""
    return {name: importlib.metadata.version(name) for name in names}


def network(path: str) -> Any:
    """What a loop has to know: ``width height mean std palette`` (RGB) as the host wrote it."""
    return json.loads(Path(path).read_text())


def option(arguments: Sequence[str], name: str, default: str) -> str:
    """The word after ``--name``."""
    return arguments[arguments.index(name) + 1] if name in arguments else default


def _cpu_seconds() -> float:
    """Of this process and of those it waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _peak_mib() -> float:
    """Most memory that this process held, or one it waited for."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    own = int(found[1]) if found else 0
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024
