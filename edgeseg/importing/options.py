"""What a user may state about a network made elsewhere, and how it is written."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeseg.artifacts.card import ClassMap, Color, InputSpec, Resize
from edgeseg.artifacts.documents import first_problem
from edgeseg.artifacts.files import read_capped
from edgeseg.errors import CorruptArtifact, UsageError


@dataclass(frozen=True)
class Normalise:
    """``(value * scale - mean) / std`` with grey levels 0…255; ``name`` as in ``--normalise``."""

    name: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def spec(self, color: Color) -> dict[str, Any]:
        """Fields of an :class:`InputSpec` for pictures of that colour.

        Raises:
            UsageError: It has three means, and the picture one channel.
        """
        channels = 1 if color == "gray" else 3
        mean, std = (
            values * channels if len(values) == 1 else values for values in (self.mean, self.std)
        )
        if len(mean) != channels:
            raise UsageError(
                f"--normalise {self.name} is for 3 channels, and the picture has {channels}",
                hint="state the mean and the standard deviation, e.g. --normalise 0.5/0.5",
            )
        if color == "bgr" and self.name == "imagenet":
            mean, std = mean[::-1], std[::-1]
        return {"scale": self.scale, "mean": mean, "std": std}

    def affine(self, color: Color) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Factors and offsets of the channels: ``value * factor - offset``."""
        fields = self.spec(color)
        factors = tuple(self.scale / std for std in fields["std"])
        offsets = tuple(m / s for m, s in zip(fields["mean"], fields["std"], strict=True))
        return factors, offsets


IMAGENET = Normalise("imagenet", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT = Normalise("unit", 1 / 255, (0.0,), (1.0,))
NONE = Normalise("none", 1.0, (0.0,), (1.0,))
NAMED = {each.name: each for each in (IMAGENET, UNIT, NONE)}


def parse_normalise(text: str) -> Normalise:
    """Parse ``imagenet``, ``unit``, ``none`` or ``MEAN/STD``.

    Means above 1 are grey levels 0…255, others fractions of 1: ``0.485,0.456,0.406/0.229,…``.

    Raises:
        UsageError: It is none of those.
    """
    if text in NAMED:
        return NAMED[text]
    parts = text.split("/")
    try:
        mean, std = (tuple(float(value) for value in part.split(",")) for part in parts)
    except ValueError:
        mean, std = (), ()
    sound = all(math.isfinite(value) for value in (*mean, *std)) and all(s > 0 for s in std)
    if not sound or len(mean) != len(std) or len(mean) not in (1, 3):
        raise UsageError(
            f"--normalise takes {', '.join(NAMED)} or MEAN/STD, not {text!r}",
            hint="--normalise 0.5,0.5,0.5/0.5,0.5,0.5, or in grey levels "
            "123.675,116.28,103.53/58.395,57.12,57.375",
        )
    levels = max(map(abs, (*mean, *std))) > 1
    return Normalise(text, 1.0 if levels else 1 / 255, mean, std)


def input_spec(
    size: tuple[int, int], color: Color, normalise: Normalise, resize: Resize
) -> InputSpec:
    """Make the card's input; raises UsageError for sizes that a card does not hold."""
    fields = {"height": size[0], "width": size[1], "color": color, "resize": resize}
    try:
        return InputSpec.model_validate(fields | normalise.spec(color))
    except ValidationError as error:
        raise UsageError(
            f"the input {size[1]}x{size[0]} {color} is none that edgeseg takes: "
            f"{first_problem(error)}"
        ) from error


def read_classes(text: str) -> dict[str, Any]:
    """Fields of a :class:`ClassMap` from ``--classes``: at least ``names``.

    A file holds ``{"names": […]}`` as ``classes.json``, a JSON list, or one name a line, which may
    begin with its id.

    Raises:
        UsageError: There is no such file, or names are missing.
        CorruptArtifact: The file holds no names.
    """
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        raise UsageError(f"--classes {path}: YAML is not read here", hint=_FILE)
    if "," not in text and (path.suffix in (".json", ".txt", ".names") or path.exists()):
        return _classes_in(path)
    return {"names": [name.strip() for name in text.split(",")]}


def _classes_in(path: Path) -> dict[str, Any]:
    data = read_capped(path)
    try:
        content = data.decode("utf-8-sig")
        value = json.loads(content) if path.suffix == ".json" else _names_in(content)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{path}: no list of class names ({error})", hint=_FILE) from error
    if isinstance(value, list):
        value = {"names": [n.strip() if isinstance(n, str) else n for n in value if n != ""]}
    if isinstance(value, dict) and isinstance(value.get("id2label"), dict):
        value = {"names": list(value["id2label"].values())}
    if not isinstance(value, dict) or not isinstance(value.get("names"), list):
        raise CorruptArtifact(f"{path}: expected the names of classes, found none", hint=_FILE)
    return value


def _names_in(text: str) -> list[str]:
    """Names from lines, or from one line with commas; without comments and ids in front."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) == 1:
        lines = [name.strip() for name in lines[0].split(",")]
    numbered = [re.fullmatch(r"(\d+)(?:\s*[:=,;]\s*|\s+)(.+)", line) for line in lines]
    if all(match and int(match[1]) == at for at, match in enumerate(numbered)):
        return [match[2] for match in numbered if match]
    return lines


_FILE = 'write {"names": ["background", "road"]}, or one name a line in a .txt file'


def class_map(fields: dict[str, Any], origin: str) -> ClassMap:
    """Validate classes; raises UsageError."""
    try:
        return ClassMap.model_validate(fields)
    except ValidationError as error:
        raise UsageError(
            f"{origin}: {first_problem(error)}",
            hint="name each class once, in the order of the network: --classes background,road",
        ) from error
