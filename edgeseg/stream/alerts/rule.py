"""Alert rules: their text, the value that they compare, and when they are raised and cleared.

::

    CLASS COMPARISON AMOUNT UNIT [in ZONE] [on SOURCE] [for DURATION] [cooldown DURATION]

    Pedestrian > 2% in zone.json for 0.5s
    "traffic sign" >= 3 regions on 1 for 2 s cooldown 5min
    Road < 5000px

=============== ===================================================================
``CLASS``       class name; in double quotes if it has spaces, quotes or ``< > =``
``COMPARISON``  ``>``, ``>=``, ``<`` or ``<=``
``UNIT``        ``%`` of the zone's pixels, ``px`` of the frame, or ``regions``
``in ZONE``     file of a zone (:mod:`edgeseg.ops.zone`); else the whole frame
``on SOURCE``   number of a source in the stream, from 0; else each by itself
``for``         how long it must hold before the alert is raised, and not hold before it
                is cleared; else one frame is enough. ``ms``, ``s`` or ``min``; of a file, by the
                times at which its frames are shown
``cooldown``    how long an alert that was raised is not raised again
=============== ===================================================================

The parts after the unit come in any order.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError
from edgeseg.ops.components import components
from edgeseg.ops.regions import least_area
from edgeseg.ops.zone import Zone
from edgeseg.stream.result import StreamResult

Operator = Literal[">", ">=", "<", "<="]
Unit = Literal["%", "px", "regions"]

EXAMPLE = "write it like this: 'Pedestrian > 2% in zone.json for 0.5s'"

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "min": Decimal(60)}
_TOKEN = re.compile(r'"(?:[^"\\]|\\["\\])*"|[<>]=?|[^\s"<>=]+')
_AMOUNT = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(.*)", re.DOTALL)
_BARE = re.compile(r'[^\s"<>=]+')


@dataclass(frozen=True)
class AlertRule:
    """A parsed alert rule; ``str(rule)`` is text that parses to an equal rule.

    Attributes:
        label: Name of the class.
        comparison: Operator that compares the measured value with ``amount``.
        amount: Threshold in ``unit``; percentages are 0…100.
        unit: Unit of the measured value: ``%``, ``px`` or ``regions``.
        zone: Zone file; None for the whole frame.
        source: Number of the source; None for every source.
        duration: Seconds that the rule must hold to raise the alert, and not hold to clear it.
        cooldown: Minimum number of seconds between two raised alerts.
    """

    label: str
    comparison: Operator
    amount: float
    unit: Unit
    zone: Path | None = None
    source: int | None = None
    duration: float = 0.0
    cooldown: float = 0.0

    def holds(self, value: float) -> bool:
        """Whether a value in ``unit`` meets the rule."""
        return _COMPARE[self.comparison](value, self.amount)

    def __str__(self) -> str:
        unit = self.unit if self.unit == "%" else f" {self.unit}"
        parts = [f"{_quoted(self.label)} {self.comparison} {_decimal(self.amount)}{unit}"]
        if self.zone is not None:
            parts.append(f"in {_quoted(str(self.zone))}")
        if self.source is not None:
            parts.append(f"on {self.source}")
        if self.duration:
            parts.append(f"for {_decimal(self.duration)}s")
        if self.cooldown:
            parts.append(f"cooldown {_decimal(self.cooldown)}s")
        return " ".join(parts)


def parse_rule(text: str) -> AlertRule:
    """Parse a rule; the module's docstring describes the syntax.

    Raises:
        UsageError: The syntax is wrong; the message points to the character.
    """
    return _Parser(text).rule()


def anchored(text: str, folder: Path) -> str:
    """Resolve the relative path of a rule's zone file against ``folder``.

    Raises:
        UsageError: As :func:`parse_rule`.
    """
    rule = parse_rule(text)
    if rule.zone is None or rule.zone.is_absolute():
        return text
    return str(replace(rule, zone=folder / rule.zone))


@dataclass(frozen=True)
class _Token:
    text: str
    start: int

    @property
    def value(self) -> str:
        """Without quotes."""
        if not self.text.startswith('"'):
            return self.text
        return re.sub(r"\\(.)", r"\1", self.text[1:-1])


@dataclass
class _Parser:
    text: str
    _place: int = 0
    _clauses: dict[str, object] = field(default_factory=dict)

    def rule(self) -> AlertRule:
        label = self._next("the name of a class")
        if not label.value or label.text[0] in "<>":
            self._refuse("the name of a class", label)
        comparison = self._comparison()
        amount, unit = self._amount()
        while (word := self._peek()) is not None:
            self._clause(word)
        clauses = self._clauses
        return AlertRule(
            label=label.value,
            comparison=comparison,
            amount=amount,
            unit=unit,
            zone=cast("Path | None", clauses.get("in")),
            source=cast("int | None", clauses.get("on")),
            duration=cast("float", clauses.get("for", 0.0)),
            cooldown=cast("float", clauses.get("cooldown", 0.0)),
        )

    def _comparison(self) -> Operator:
        expected = "a comparison (> >= < <=)"
        token = self._next(expected)
        if token.text not in _COMPARE:
            self._refuse(f"{expected}; names with spaces stand in double quotes", token)
        return cast("Operator", token.text)

    def _amount(self) -> tuple[float, Unit]:
        number, unit, token = self._measure("a number with %, px or regions")
        if unit.text not in ("%", "px", "regions"):
            self._refuse("%, px or regions after the number", unit)
        if unit.text == "%" and number > 100:
            self._refuse("at most 100 %", token)
        if unit.text != "%" and number != int(number):
            self._refuse(f"a whole number of {unit.text}", token)
        return float(number), cast("Unit", unit.text)

    def _clause(self, word: _Token) -> None:
        readers = {
            "in": self._zone,
            "on": self._source,
            "for": self._duration,
            "cooldown": self._duration,
        }
        if word.text not in readers:
            self._refuse("in, on, for, cooldown or the end", word)
        if word.text in self._clauses:
            self._refuse(f"{word.text} once only", word)
        self._next("")
        self._clauses[word.text] = readers[word.text]()

    def _zone(self) -> Path:
        token = self._next("the file of a zone")
        if not token.value or token.text[0] in "<>" or "\0" in token.value:
            self._refuse("the file of a zone", token)
        return Path(token.value)

    def _source(self) -> int:
        token = self._next("the number of a source")
        if not re.fullmatch(r"[0-9]{1,4}", token.text):
            self._refuse("the number of a source, from 0", token)
        return int(token.text)

    def _duration(self) -> float:
        number, unit, _ = self._measure("a duration such as 500ms, 2s or 1min")
        if unit.text not in _SECONDS:
            self._refuse("ms, s or min after the number", unit)
        return float(number * _SECONDS[unit.text])

    def _measure(self, expected: str) -> tuple[Decimal, _Token, _Token]:
        """A number, its unit with or without space before it, and where the number stands."""
        token = self._next(expected)
        match = _AMOUNT.fullmatch(token.text)
        if match is None or not token.text.isascii():
            self._refuse(expected, token)
        unit = _Token(match[2], token.start + len(match[1])) if match[2] else self._next("a unit")
        return Decimal(match[1]), unit, token

    def _peek(self) -> _Token | None:
        """The next token; None at the end."""
        start = len(self.text) - len(self.text[self._place :].lstrip())
        if start == len(self.text):
            return None
        match = _TOKEN.match(self.text, start)
        if match is None:
            wrong = self.text[start:]
            what = (
                "a closing quote" if wrong.startswith('"') else "a name, a comparison or a number"
            )
            self._refuse(what, _Token(wrong, start))
        return _Token(match[0], start)

    def _next(self, expected: str) -> _Token:
        token = self._peek()
        if token is None:
            self._refuse(expected, _Token("", len(self.text.rstrip())))
        self._place = token.start + len(token.text)
        return token

    def _refuse(self, expected: str, token: _Token) -> NoReturn:
        found = f"found {printable(token.text, 40)!r}" if token.text else "found the end"
        # Printed one character for one, so that the mark stands where it should.
        shown = "".join(each if each.isprintable() else " " for each in self.text)
        raise UsageError(
            f"an alert's rule, character {token.start + 1}: expected {expected}, {found}\n"
            f"  {shown}\n  {' ' * token.start}^",
            hint=EXAMPLE,
        )


def _quoted(name: str) -> str:
    if _BARE.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _decimal(value: float) -> str:
    """Without exponent, and as short as reads back the same."""
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, eq=False)
class _Patch:
    """A zone in a frame: its smallest rectangle, the pixels inside, and how many they are."""

    window: tuple[slice, slice]
    inside: NDArray[np.bool_]
    pixels: int


class Measure:
    """Measures one class in one zone.

    Args:
        unit: Unit of the value: ``%`` of the zone's pixels, ``px``, or ``regions``, the number
            of connected regions within the zone.
        zone: Zone to measure in; None for the whole frame.
        min_region: Smallest region that counts, as a share of the frame from 0 to 1.
    """

    def __init__(self, label: int, unit: Unit, zone: Zone | None, min_region: float = 0.0) -> None:
        self._label, self._unit, self._zone = label, unit, zone
        self._min_region = min_region
        self._patch = functools.lru_cache(maxsize=8)(self._make_patch)

    def of(self, result: StreamResult) -> float:
        """Return the value in ``unit``; nan if the zone covers no pixel of the frame."""
        height, width = result.frame.shape[:2]
        pixels = height * width
        if self._zone is None and self._unit != "regions":
            return self._scaled(int(result.areas()[self._label]), pixels)
        found = result.mask() == self._label
        if self._zone is not None:
            patch = self._patch(height, width)
            if not patch.pixels:
                return float("nan")
            found, pixels = found[patch.window] & patch.inside, patch.pixels
        if self._unit == "regions":
            least = least_area(self._min_region, height * width)
            return int(np.count_nonzero(components(found.view(np.uint8), 0).areas >= least))
        return self._scaled(int(np.count_nonzero(found)), pixels)

    def _scaled(self, count: int, pixels: int) -> float:
        return 100 * count / pixels if self._unit == "%" else count

    def _make_patch(self, height: int, width: int) -> _Patch:
        assert self._zone is not None
        inside = self._zone.mask(height, width)
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        if not rows.size:
            return _Patch((slice(0), slice(0)), inside[:0, :0], 0)
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return _Patch(window, inside[window].copy(), int(inside.sum()))


AlertEvent = Literal["raised", "cleared", "unknown"]
RuleState = Literal["idle", "pending", "raised", "unknown"]


class RuleTracker:
    """Tracks the state of a rule on one source as its value changes over time.

    ::

               holds            held for `for`
        idle ─────────▶ pending ─────────────▶ raised ─┐
         ▲ ▲              │ holds no more        │     │ source lost
         │ └──────────────┘                      │     ▼
         └────────── did not hold for `for` ◀────┘   unknown ─ frames again ─▶ raised or idle

    A lost source tells nothing about the scene: it neither raises nor clears an alert, whose state
    is reported as unknown. Between two frames the value of the first one is assumed to hold. The
    caller reports when a source is lost.

    Args:
        rule: The rule.
    """

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self._known: bool | None = False
        self._pending: bool | None = None
        self._since = 0.0
        self._raised_at: float | None = None

    @property
    def state(self) -> RuleState:
        """Current state."""
        if self._known is None:
            return "unknown"
        if self._known:
            return "raised"
        return "idle" if self._pending is None else "pending"

    def update(self, value: float, at: float) -> AlertEvent | None:
        """Take the value of a frame; returns the event that it causes, if any.

        Args:
            value: In the rule's unit.
            at: Seconds on the clock of the scene, never less than before: the time in the video
                of a file's frame, the monotonic clock of a camera's.
        """
        holds = self.rule.holds(value)
        if holds == self._known:
            self._pending = None
            return None
        if self._pending != holds:
            self._pending, self._since = holds, at
        if at - self._since < self.rule.duration or (holds and self._too_soon(at)):
            return None
        self._known, self._pending = holds, None
        if holds:
            self._raised_at = at
        return "raised" if holds else "cleared"

    def source_lost(self) -> AlertEvent | None:
        """Record that the source was lost; returns the event, if it is news."""
        self._pending = None
        if self._known is None:
            return None
        self._known = None
        return "unknown"

    def _too_soon(self, at: float) -> bool:
        """Whether an alert that was cleared cools down; one that got unknown does not."""
        if self._known is None or self._raised_at is None:
            return False
        return at - self._raised_at < self.rule.cooldown
