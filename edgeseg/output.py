"""What a command leaves on stdout: one JSON document, or lines for people; and its errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from edgeseg.errors import AccuracyGateError, EdgesegError


def finish(as_json: bool, result: Mapping[str, Any]) -> None:
    """Print the result of a command: one JSON document, or a line for each entry."""
    if as_json:
        print(json.dumps(result, default=str, allow_nan=False))
        return
    for key, value in result.items():
        name = key.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{name}:")
            for entry in value:
                print(f"  {_text(entry)}")
        elif value not in (None, [], {}):
            print(f"{name}: {_text(value)}")


def fail(error: EdgesegError, *, as_json: bool) -> NoReturn:
    """Print an error as people read it (and as JSON where that was asked for) and exit."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.mend:
        print(f"  mend: {error.mend}", file=sys.stderr)
    if as_json:
        document: dict[str, Any] = {
            "kind": type(error).__name__,
            "message": error.message,
            "mend": error.mend,
            "exit_code": error.exit_code,
        }
        if isinstance(error, AccuracyGateError):
            document["layers"] = error.layers
        print(json.dumps({"error": document}))
    sys.exit(error.exit_code)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        parts = (f"{key.replace('_', ' ')} {_text(part)}" for key, part in value.items())
        return ", ".join(parts)
    if isinstance(value, list):
        return ", ".join(_text(part) for part in value)
    return str(value)
