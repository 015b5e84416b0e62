"""The command line that repeats a build."""

from __future__ import annotations

import shlex

from edgeseg.options.base import words
from edgeseg.options.building import BuildConfig


def again(config: BuildConfig) -> str:
    """Return ``edgeseg build …`` with all options that differ from their defaults."""
    command = ["edgeseg", "build", str(config.onnx), f"--{config.precision}"]
    return shlex.join([*command, *words(config)])
