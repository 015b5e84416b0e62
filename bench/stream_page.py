"""Result documents of the stream benchmarks, and the page generated from them."""

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from harness import cpu_seconds, now, words

from edgeseg import machine
from edgeseg.artifacts.documents import Document
from edgeseg.report.tables import Column, Table, render_markdown


class FileRow(Document):
    """One way to run one engine over the file; medians over the rounds.

    ``of_inference``: frames per second as a share of what the engine does alone.
    ``outside_ms``: CPU milliseconds a frame besides the engine's.
    """

    engine: str
    loop: str
    fps: float
    of_inference: float
    outside_ms: float | None
    rounds: int


class LiveRow(Document):
    """One way to run one engine on the live camera.

    ``age_ms``: p50, p95, p99 at the sink. ``late_ms``: the median age of the last second.
    ``infer_ms``: the median of the engine alone, before.
    """

    engine: str
    loop: str
    infer_ms: float
    age_ms: dict[str, float]
    late_ms: float
    shown: int
    sent: int


class Measured(Document):
    """What one part measured."""

    part: str
    measured: str
    machine: dict[str, Any]
    load_average: float
    clip: str
    network: str = "512x256"
    decode_ms: float | None
    rows: list[FileRow] | list[LiveRow]


def measured(part: str, rows: Any, clip: Path, options: Namespace) -> Measured:
    """The document of one part, with the machine it ran on."""
    return Measured(
        part=part,
        measured=now(),
        machine=machine.describe().to_dict(),
        load_average=os.getloadavg()[0],
        clip=options.video.name if options.video else "the sample's pictures",
        network=f"{options.size[1]}x{options.size[0]}",
        decode_ms=decode_ms(clip),
        rows=rows,
    )


def decode_ms(clip: Path, frames: int = 200) -> float:
    """CPU milliseconds that OpenCV takes to decode a frame of the clip."""
    capture = cv2.VideoCapture(str(clip))
    before, count = cpu_seconds(), 0
    while count < frames and capture.read()[0]:
        count += 1
    capture.release()
    return (cpu_seconds() - before) / max(1, count) * 1000


def page(documents: Sequence[Measured]) -> str:
    """Markdown of all that was measured."""
    parts = [_INTRODUCTION]
    for document in documents:
        live = document.part == "live"
        parts.append(_LIVE if live else _FILE)
        parts.append(render_markdown(_live_table(document) if live else _file_table(document)))
        parts.append(
            f"Measured {document.measured}; {document.machine.get('cpu', '')}; load average "
            f"{document.load_average:.2f} after the run; network of {document.network}; clip of "
            f"{document.clip}, of which OpenCV decodes a frame in {document.decode_ms:.1f} ms of "
            "CPU time.\n"
        )
    return "\n".join(parts)


_INTRODUCTION = """\
# The camera loop against the loops people write

`python bench/stream.py`: `unet-lite`, a 720p H.264 clip, overlay drawn and thrown
away. The peers are in `bench/stream_peers.py`; every row of an engine uses the same engine.
"""
_FILE = """\
## A file, as fast as it goes

Share: of the frames per second that the engine does alone in the same round. Outside: CPU
milliseconds a frame besides the engine's, decoding included.
"""
_LIVE = """\
## A live RTSP camera of 25 frames per second

Age of a frame when it reaches the sink, told by the number in its picture and counted from the
earliest arrival of a frame. In edgeseg that is its capture, in loops by hand the end of their
work, so their ages are too low by what a frame takes.
"""


def _file_table(document: Measured) -> Table:
    heads = (
        *words("Engine", "Loop"),
        Column("Rate", "fps"),
        Column("Share"),
        Column("Outside", "CPU ms"),
    )
    return Table(
        heads,
        tuple(
            (
                *(row.engine, row.loop, f"{row.fps:.1f}", f"{row.of_inference:.2f}"),
                "–" if row.outside_ms is None else f"{row.outside_ms:.1f}",
            )
            for row in document.rows
            if isinstance(row, FileRow)
        ),
    )


def _live_table(document: Measured) -> Table:
    heads = (
        *words("Engine", "Loop"),
        *(Column("Inference", "ms"), Column("Age p50", "ms"), Column("Age p99", "ms")),
        *(Column("Age at the end", "ms"), Column("Shown"), Column("Sent")),
    )
    return Table(
        heads,
        tuple(
            (
                *(row.engine, row.loop, f"{row.infer_ms:.1f}", f"{row.age_ms['p50']:.0f}"),
                *(f"{row.age_ms['p99']:.0f}", f"{row.late_ms:.0f}", str(row.shown), str(row.sent)),
            )
            for row in document.rows
            if isinstance(row, LiveRow)
        ),
    )
