"""Durations come from monotonic clocks: a wall clock that jumps changes nothing."""

import ast
import itertools
import time
from pathlib import Path
from typing import Any

import pytest

import edgeseg.stream
from edgeseg.engines.base import Engine
from edgeseg.stream import Stream, StreamOptions

FORBIDDEN = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}


def wall_clocks(source: str) -> list[int]:
    """Lines that name a wall clock."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and (ast.unparse(node.value), node.attr) in FORBIDDEN)
        or (
            isinstance(node, ast.ImportFrom)
            and any((node.module, name.name) in FORBIDDEN for name in node.names)
        )
    ]


def stamps_only(path: Path) -> bool:
    """Names, numbers and lines say the time of day; the age of a file and an hour are by it."""
    return path.name in (
        *("snapshots.py", "lines.py", "playlist.py"),
        *("retention.py", "uncertain.py"),
    )


def test_nothing_in_the_stream_asks_the_wall_clock() -> None:
    files = sorted(Path(edgeseg.stream.__file__).parent.rglob("*.py"))
    assert len(files) > 10
    found = {f.name: wall_clocks(f.read_text()) for f in files if not stamps_only(f)}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("line", ["time.time()", "from time import time", "datetime.now()"])
def test_a_wall_clock_is_found(line: str) -> None:
    assert wall_clocks(f"\n{line}") == [2]


def test_a_wall_clock_that_jumps_stalls_nothing(
    camera: Any, grey_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.count(0, 3600)
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    stream = Stream(camera.url, grey_engine, StreamOptions(max_frames=20))
    with stream:
        states = {stream.sources[0].state for _ in stream}
    assert states == {"ok"}
    assert stream.sources[0].reconnects == 0
