"""The command line that repeats a build."""

from __future__ import annotations

import shlex

from edgeseg.building.config import BuildConfig


def again(config: BuildConfig) -> str:
    """Return ``edgeseg build …`` with all options that differ from their defaults."""
    default = BuildConfig(config.onnx, config.precision)
    words: list[object] = ["edgeseg", "build", config.onnx, f"--{config.precision}"]
    single = {
        "--runtime": (config.runtime, default.runtime),
        "--ranges": (config.ranges, None),
        "--data": (config.data, None),
        "--split": (config.split, default.split),
        "--max-drop": (_per_cent(config.max_drop), _per_cent(default.max_drop)),
        "--max-class-drop": (_per_cent(config.max_class_drop), _per_cent(default.max_class_drop)),
        "--min-agreement": (_per_cent(config.min_agreement), _per_cent(default.min_agreement)),
    }
    for option, (value, usual) in single.items():
        if value != usual:
            words += [option, value]
    repeated = {
        "--target": config.plan.targets,
        "--quantise": config.quantise,
        "--keep": config.keep,
    }
    for option, values in repeated.items():
        for value in values:
            words += [option, value]
    return shlex.join(map(str, words))


def _per_cent(fraction: float | None) -> str:
    return "none" if fraction is None else f"{100 * fraction:g}"
