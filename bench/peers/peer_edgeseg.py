"""Peer that runs edgeseg's stream: ``peer_edgeseg.py ENGINE [--drawn bare|default]``.

Files run in the stream's mode for files, cameras in its mode for cameras, as ``edgeseg stream``
runs them. ``bare`` draws what the other loops draw, colours alone; ``default`` also class names
and the legend.
"""

import os
import sys
import time
from collections.abc import Generator
from pathlib import Path

from worker import Drawn, option, serve, versions

from edgeseg.engines import open_engine
from edgeseg.stream import Stream, StreamOptions


def main() -> None:
    """Open the engine and answer."""
    threads = os.cpu_count()
    full = option(sys.argv, "--drawn", "bare") == "default"
    engine = open_engine(Path(sys.argv[1]), threads=threads)
    options = StreamOptions(names=full, legend=full)

    def frames(source: str) -> Generator[Drawn, None, None]:
        with Stream(source, engine, options) as stream:
            for result in stream:
                start = time.perf_counter()
                result.overlay()
                drawing = (time.perf_counter() - start) * 1000
                took = result.stages_ms
                yield Drawn(
                    result.frame, result.captured_at, took["infer"], took["preprocess"] + drawing
                )

    names = ("edgeseg", "numpy", "opencv-python", engine.runtime)
    serve(frames, {"versions": versions(*names), "threads": threads})


if __name__ == "__main__":
    main()
