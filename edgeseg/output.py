"""What a command leaves on stdout: one JSON document, or lines for people; and its errors."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from edgeseg.console import visible
from edgeseg.errors import AccuracyGateError, EdgesegError

INTERRUPTED, BROKEN_PIPE = 130, 141
"""The exit codes that shells give a process that SIGINT or SIGPIPE ended."""


def finish(as_json: bool, result: Mapping[str, Any]) -> None:
    """Print the result of a command: one JSON document, or a line for each entry."""
    if as_json:
        print(json.dumps(result, default=str, allow_nan=False))
        return
    for key, value in result.items():
        name = key.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{visible(name)}:")
            for entry in value:
                print(f"  {visible(_text(entry))}")
        elif value not in (None, [], {}):
            print(visible(f"{name}: {_text(value)}"))


def show(text: str) -> None:
    """Print lines that a command has laid out for people, without a newline of its own."""
    print(visible(text, lines=True), end="")


def fail(error: EdgesegError, *, as_json: bool) -> NoReturn:
    """Print an error as people read it (and as JSON where that was asked for) and exit."""
    with contextlib.suppress(OSError):  # The exit code says it to whoever hears nothing else.
        print(f"error: {visible(error.message, lines=True)}", file=sys.stderr)
        if error.mend:
            print(f"  mend: {visible(error.mend, lines=True)}", file=sys.stderr)
    if as_json:
        document: dict[str, Any] = {
            "kind": type(error).__name__,
            "message": error.message,
            "mend": error.mend,
            "exit_code": error.exit_code,
        }
        if isinstance(error, AccuracyGateError):
            document["layers"] = error.layers
        with contextlib.suppress(OSError):
            print(json.dumps({"error": document}))
    sys.exit(error.exit_code)


def prepare_streams() -> None:
    """Make stdout and stderr take any text, and exist.

    A name may hold bytes that are no text, and a stream's encoding may have no room for ``×``:
    both are written as escapes. Where a stream was closed (``>&-``), the next file opened would
    take its number, and what a library prints would end up in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Which takes the lowest number that is free.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave(status: int) -> NoReturn:
    """Exit; what a stream does not take is dropped, or Python would try again and exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        parts = (f"{key.replace('_', ' ')} {_text(part)}" for key, part in value.items())
        return ", ".join(parts)
    if isinstance(value, list):
        return ", ".join(_text(part) for part in value)
    return str(value)
