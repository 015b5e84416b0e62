"""Print the result of a command, as one JSON document or as text, and its errors."""

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
"""Exit codes that shells use for a process ended by SIGINT or SIGPIPE."""


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
    """Print preformatted text without adding a newline."""
    print(visible(text, lines=True), end="")


def fail(error: EdgesegError, *, as_json: bool) -> NoReturn:
    """Print an error on stderr, with ``as_json`` also as JSON on stdout, and exit."""
    with contextlib.suppress(OSError):  # The exit code still reports the error.
        print(f"error: {visible(error.message, lines=True)}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {visible(error.hint, lines=True)}", file=sys.stderr)
    if as_json:
        print_error(error)
    sys.exit(error.exit_code)


def print_error(error: EdgesegError) -> None:
    """Print an error as JSON on stdout."""
    document: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    if isinstance(error, AccuracyGateError):
        document["layers"] = error.layers
    with contextlib.suppress(OSError):
        print(json.dumps({"error": document}))


def prepare_streams() -> None:
    """Make sure that stdout and stderr are open and accept any text.

    Undecodable bytes in names, and characters such as ``×`` that the encoding lacks, are written
    as escapes. If a stream was closed (``>&-``), the next file opened would get its descriptor,
    and the output of a library would end up in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free descriptor.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def leave(status: int) -> NoReturn:
    """Exit and drop output that cannot be written, for which Python would exit with 120."""
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
        parts = ((key.replace("_", " "), _text(part)) for key, part in value.items())
        return ", ".join(f"{name} {text}" for name, text in parts if text)
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(part) for part in value)
    return "" if value is None else str(value)
