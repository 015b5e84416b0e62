"""Shell completion of option values; Typer completes option names, files and commands itself.

Completion runs the command line at each key press, so the words are listed here instead of
imported from heavy modules. A test compares them with the code that accepts them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

from typer.models import OptionInfo

Words = Mapping[str, tuple[str, ...]]

_PRECISIONS = ("int8", "fp16")

VALUES: Mapping[str, Words] = {
    "train": {
        "arch": ("unet-lite", "unet", "fcn32s", "fcn16s", "fcn8s"),
        "pretrained": ("imagenet",),
        "augment": ("upright", "any", "none"),
        "schedule": ("one-cycle", "poly", "cosine"),
        "autocast": ("auto", "off", "bf16", "fp16"),
        "class_weights": ("none", "median-frequency"),
        "touching": ("merged", "gap", "boundary"),
        "color": ("rgb", "bgr", "gray"),
        "resize": ("stretch", "letterbox"),
        "reduce": ("bilinear", "area"),
    },
    "import": {
        "color": ("rgb", "bgr", "gray"),
        "normalise": ("imagenet", "unit", "none"),
        "resize": ("stretch", "letterbox"),
        "enlarge": ("scores", "labels"),
    },
    "calibrate": {
        "select": ("k-centre", "random", "first", "spread"),
        "method": ("minmax", "percentile", "entropy", "mse"),
    },
    "build": {
        "runtime": ("auto", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"),
        "target": ("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"),
        "hardware_compatibility": ("none", "ampere+", "same"),
        "timing_cache": ("auto", "none"),
    },
    "infer": {"cluster": ("local", "auto", "ray://")},
    "sensitivity": {
        "precision": _PRECISIONS,
        "runtime": ("onnxruntime", "openvino", "tensorrt-rtx"),
    },
    "stream": {"mode": ("latency", "throughput")},
}
"""Command → parameter → values to offer."""


def offering(command: Callable[..., Any], words: Words) -> Callable[..., Any]:
    """Add shell completion of the given words to parameters of a command; return the command.

    Raises:
        KeyError: The command has no such parameter.
    """
    hints = get_type_hints(command, include_extras=True)
    for parameter, values in words.items():
        hint = hints[parameter]
        infos = (_offering(info, values) for info in hint.__metadata__)
        hints[parameter] = Annotated[(hint.__origin__, *infos)]
    command.__annotations__ = hints
    return command


def _offering(info: Any, words: tuple[str, ...]) -> Any:
    """Return a copy of an option that completes the words; anything else is returned unchanged."""
    if not isinstance(info, OptionInfo):
        return info

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    offered = copy.copy(info)
    offered.autocompletion = complete
    return offered
