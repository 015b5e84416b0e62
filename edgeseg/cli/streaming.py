"""``stream``: cameras through an engine to windows, files and other machines."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.options import Json, Threads, height_width, one_of
from edgeseg.errors import UsageError
from edgeseg.output import finish

if TYPE_CHECKING:
    from edgeseg.engines.base import Engine
    from edgeseg.stream import Sink, Source

ONE_SOURCE = "edgeseg stream --camera 0, or edgeseg stream --source test:"


def stream(
    engine: Annotated[
        Path | None, typer.Argument(help="Engine or run folder; default: the newest run's.")
    ] = None,
    camera: Annotated[
        list[int] | None, typer.Option(min=0, help="V4L2 camera number; several: once each.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Video, folder, glob, rtsp:// or http:// URL, /dev/videoN, csi:N, "
            "gst:PIPELINE, test:; several: once each."
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="That the camera shall send.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="The same of frames a second.")] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(help="netrc file (chmod 600) for cameras whose URL names no user."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Write the overlay to this .mkv file; of several sources NAME-N.mkv."),
    ] = None,
    save_masks: Annotated[
        Path | None, typer.Option(help="Write label maps here; of several sources into N/.")
    ] = None,
    json_lines: Annotated[
        Path | None, typer.Option(help="Write one JSON line a frame to this file.")
    ] = None,
    window: Annotated[bool, typer.Option(help="Show the overlay; q quits.")] = True,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the overlay.")] = 0.5,
    realtime: Annotated[
        bool | None,
        typer.Option(
            "--realtime/--every-frame",
            help="Newest frame wins (default for live), or none is lost (default for files).",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="latency: nothing waits (default for one live source); throughput: most frames "
            "a second (default for files and several sources)."
        ),
    ] = None,
    lanes: Annotated[
        int | None, typer.Option(min=1, help="Engines side by side in throughput mode.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Frames at once, at most; default: one a source.")
    ] = None,
    keep_trying: Annotated[
        bool, typer.Option("--keep-trying", help="Wait for cameras that cannot be opened yet.")
    ] = False,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Of all sources together.")] = None,
    duration: Annotated[float | None, typer.Option(min=0, help="Seconds.")] = None,
    strict: Annotated[bool, typer.Option(help="A damaged file ends with exit 5.")] = False,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Run the camera loop: capture, segment, overlay, show or record."""
    from edgeseg.runs import RUNNABLE, resolve
    from edgeseg.stream import Stream, StreamOptions, parse_source, run
    from edgeseg.stream.source import with_format

    pixels = None if size is None else height_width("--size", size)[::-1]
    specs = [
        with_format(parse_source(text), size=pixels, fps=fps)
        for text in _sources(camera or (), source or ())
    ]
    options = StreamOptions(
        realtime=realtime,
        mode=None if mode is None else one_of("--mode", mode, ("latency", "throughput")),
        batch=batch,
        persistent=keep_trying,
        max_frames=max_frames,
        duration=duration,
        strict=strict,
        opacity=opacity,
        credentials=credentials,
    )
    path = resolve(engine, RUNNABLE, "edgeseg build --fp16")
    outputs = _Outputs(len(specs), record, save_masks, json_lines, window)
    sinks = outputs.sinks()
    with contextlib.ExitStack() as stack:
        engines = _open(path, lanes or 1, threads, stack)
        report = run(Stream(specs, engines, options), sinks)
    finish(
        as_json,
        {
            "engine": str(path),
            **report.to_dict(),
            "recordings": [str(each) for each in outputs.recordings()],
        },
    )


def _sources(cameras: Sequence[int], sources: Sequence[str]) -> list[str]:
    both = [*(f"camera:{number}" for number in cameras), *sources]
    if not both:
        raise UsageError("a source is needed: --camera N or --source …", mend=ONE_SOURCE)
    return both


def _open(path: Path, lanes: int, threads: int | None, stack: contextlib.ExitStack) -> list[Engine]:
    from edgeseg.loading import load

    return [stack.enter_context(load(path, threads=threads)) for _ in range(lanes)]


@dataclass(frozen=True)
class _Outputs:
    """Where the user wants results."""

    sources: int
    record: Path | None
    masks: Path | None
    json_lines: Path | None
    window: bool

    def recordings(self) -> list[Path]:
        """One a source."""
        if self.record is None:
            return []
        return [self._recording(self.record, number) for number in range(self.sources)]

    def sinks(self) -> list[Sink]:
        """Encoding and writing happen beside the stream; the window belongs to its thread."""
        from edgeseg.stream import Background, JsonLines, Window

        sinks: list[Sink] = []
        if self.record is not None:
            sinks.append(Background(self._recorder(self.record)))
        if self.masks is not None:
            sinks.append(Background(self._mask_writer(self.masks)))
        if self.json_lines is not None:
            sinks.append(JsonLines(self.json_lines))
        if self.window:
            sinks.append(Window())
        return sinks

    def _recorder(self, path: Path) -> Sink:
        from edgeseg.stream import Each, Recording

        if self.sources == 1:
            return Recording(path)

        def make(source: Source) -> Sink:
            return Recording(self._recording(path, source.index))

        return Each(make, f"the recordings {path}", shows_overlay=True)

    def _mask_writer(self, folder: Path) -> Sink:
        from edgeseg.stream import Each, Masks

        if self.sources == 1:
            return Masks(folder)
        return Each(lambda source: Masks(folder / str(source.index)), f"the mask folders {folder}")

    def _recording(self, path: Path, number: int) -> Path:
        return path if self.sources == 1 else path.with_stem(f"{path.stem}-{number}")
