"""How pictures become a network's input: what is stated, known, found on pictures or assumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edgeseg.artifacts.card import ClassMap, InputSpec
from edgeseg.artifacts.documents import plural
from edgeseg.errors import UsageError
from edgeseg.importing.finder import Combination, Part, Ranking
from edgeseg.importing.inputs import PictureInput
from edgeseg.importing.knowledge import Known
from edgeseg.importing.options import IMAGENET, NONE, UNIT, input_spec, parse_normalise
from edgeseg.options.importing import ImportConfig

STATED, ASSUMED = "stated", "assumed"

_POOR = 0.5  # mean IoU; below it, more is wrong than the preprocessing
_SHOWN = 3
_TEXT: tuple[Part, ...] = ("color", "normalise", "resize")


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become the network's input, and where each part is known from."""

    combination: Combination
    origins: dict[str, str]

    def spec(self, size: tuple[int, int]) -> InputSpec:
        """The card's input for pictures of ``size`` (H, W)."""
        chosen = self.combination
        return input_spec(size, chosen.color, chosen.normalise, chosen.resize)

    def __str__(self) -> str:
        texts = (f"{_value(self.combination, part)} ({self.origins[part]})" for part in _TEXT)
        return ", ".join(texts)


def prior(picture: PictureInput, known: Known, config: ImportConfig) -> Preprocessing:
    """Merge what is stated with what is known; the rest is assumed.

    Raises:
        UsageError: A stated part does not fit the input.
    """
    origins: dict[str, str] = {}

    def first(part: Part, stated: Any, assumed: Any) -> Any:
        value = getattr(known, part)
        origins[part] = STATED if stated is not None else known.origins.get(part, ASSUMED)
        return stated if stated is not None else assumed if value is None else value

    gray = picture.channels == 1
    # What a file says of three channels is of no use for one.
    known = replace(known, color=None, normalise=None) if gray else known
    color = first("color", config.color, "gray" if gray else "rgb")
    if (color == "gray") != gray:
        raise UsageError(
            f"--color {color}: the network takes pictures of {picture.channels} channel"
            f"{'s' * (not gray)}",
            hint="--color gray" if gray else "--color rgb or --color bgr",
        )
    stated = None if config.normalise is None else parse_normalise(config.normalise)
    levels = picture.dtype == "uint8"
    normalise = first("normalise", stated, UNIT if gray else IMAGENET)
    if levels and stated is None:
        normalise, origins["normalise"] = NONE, "the input is uint8"
    if levels and normalise != NONE:
        raise UsageError(
            f"--normalise {normalise.name}: the network takes uint8 and normalises by itself",
            hint="omit --normalise",
        )
    resize = first("resize", config.resize, "stretch")
    return Preprocessing(Combination(color, normalise, resize), origins)


def settle(before: Preprocessing, findings: Ranking) -> Preprocessing:
    """Take what labelled pictures show, except where the user stated something else.

    Of combinations that the pictures cannot tell apart, the one closest to ``before`` is taken.
    """
    likely, pictures = before.combination, plural(findings.pictures, "picture")
    stated = [part for part in _TEXT if before.origins[part] == STATED]
    allowed = [
        each
        for each in findings.scores
        if each.order is None
        and all(getattr(each, part) == getattr(likely, part) for part in stated)
    ]
    level = [each for each in allowed if not findings.clearly_better(allowed[0], each)]
    chosen = min(level, key=lambda each: len(each.differs(likely)))
    origins = dict(before.origins)
    for part in _TEXT:
        # What normalises other orders of channels as well says nothing against this one.
        rivals = [e for e in level if part != "normalise" or e.color == chosen.color]
        told = all(getattr(each, part) == getattr(chosen, part) for each in rivals)
        if part in stated or (told and len(allowed) == 1):
            continue
        origin = f"found on {pictures}"
        if not told:
            as_before = getattr(chosen, part) == getattr(likely, part)
            origin = f"{before.origins[part] if as_before else 'best'}, {pictures} cannot tell"
        elif before.origins[part] != ASSUMED and getattr(chosen, part) == getattr(likely, part):
            origin = f"{before.origins[part]}, and {pictures} agree"
        origins[part] = origin
    return Preprocessing(chosen, origins)


def tried_lines(
    chosen: Preprocessing, findings: Ranking | None, classes: ClassMap
) -> tuple[tuple[str, str], ...]:
    """What the pictures say, as lines of the report."""
    if findings is None:
        return (("not tried", "--data DIR tries other preprocessing on labelled pictures"),)
    shown = [_scored(each, findings, classes) for each in list(findings.scores)[:_SHOWN]]
    lines = [
        (
            "tried",
            f"{plural(findings.tried, 'combination')} on {plural(findings.pictures, 'picture')}; "
            "mean IoU (difference from the best, 95 %) " + ", ".join(shown),
        )
    ]
    best, taken = findings.best, chosen.combination
    if findings.clearly_better(best, taken):
        low, high = findings.ahead(best, taken)
        instead = " and ".join(_value(best, part, classes) for part in taken.differs(best))
        lines.append(
            (
                "warning",
                f"{instead} would give {findings.scores[best]:.3f} instead of "
                f"{findings.scores[taken]:.3f} (better by {low:.3f} to {high:.3f}, 95 %); "
                f"{_advice(best, taken, classes)}",
            )
        )
    if findings.scores[best] < _POOR:
        lines.append(
            (
                "warning",
                f"no combination reaches a mean IoU of {_POOR:g}: look at --classes, --output and "
                "the masks",
            )
        )
    return tuple(lines)


def _scored(each: Combination, findings: Ranking, classes: ClassMap) -> str:
    behind = ""
    if each != findings.best and findings.pictures > 1:
        # Rounded first: -0.0 has a sign.
        high, low = (round(-end, 3) + 0.0 for end in findings.ahead(findings.best, each))
        behind = f" ({low:+.3f}…{high:+.3f})"
    return f"{findings.scores[each]:.3f}{behind} with {_named(each, classes)}"


def _advice(best: Combination, taken: Combination, classes: ClassMap) -> str:
    options = [f"--{part} {_option(best, part)}" for part in taken.differs(best) if part in _TEXT]
    if best.order is not None:
        options.append("--classes " + ",".join(classes.names[i] for i in best.order))
    return f"what is stated was kept; the better is {' '.join(options)}"


def trials(findings: Ranking) -> list[dict[str, Any]]:
    """All trials as JSON types, the best first."""
    best = findings.best
    return [
        {
            "color": each.color,
            "normalise": each.normalise.name,
            "resize": each.resize,
            "class_order": each.order,
            "mean_iou": score,
            "behind": findings.ahead(best, each),
            "pictures": findings.pictures,
        }
        for each, score in findings.scores.items()
    ]


def _option(combination: Combination, part: Part) -> str:
    value = getattr(combination, part)
    return value.name if part == "normalise" else str(value)


def _value(combination: Combination, part: Part, classes: ClassMap | None = None) -> str:
    if part == "order":
        if combination.order is None or classes is None:
            return "the classes as named"
        return "the classes in the order " + ",".join(classes.names[i] for i in combination.order)
    text = _option(combination, part)
    return f"normalisation {text}" if part == "normalise" else text


def _named(combination: Combination, classes: ClassMap) -> str:
    parts: tuple[Part, ...] = (*_TEXT, "order") if combination.order else _TEXT
    return " ".join(_value(combination, part, classes) for part in parts)
