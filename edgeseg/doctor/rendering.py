"""Render findings as text: the verdict, what to do, then what was found.

The text is the same with and without colour. Commands have their own lines and are never
wrapped, so that they can be copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from edgeseg.doctor.check import CAN, Check, Examination, Purpose

if TYPE_CHECKING:
    from rich.console import Console

_JETSON_ONLY: tuple[Purpose, ...] = ("dla", "csi")


class Line(NamedTuple):
    """A line of text and its rich style."""

    text: str
    style: str = ""


def render(findings: Examination) -> str:
    """Render findings as plain text."""
    return "".join(f"{line.text}\n" for line in lines(findings))


def show(findings: Examination, console: Console) -> None:
    """Print findings to a console, in colour if it supports that."""
    for line in lines(findings):
        console.print(line.text, style=line.style or None, markup=False, soft_wrap=True)


def lines(findings: Examination) -> Iterator[Line]:
    """Yield all lines in order."""
    yield Line(findings.machine, "bold")
    yield Line("")
    yield from _verdict(findings)
    if best := findings.recommended:
        yield Line("")
        lacks = f" (once {' and '.join(best.lacks)} is there)" if best.lacks else ""
        yield Line(f"Best here: {best.why}{lacks}")
        if "--int8" in best.name:
            yield Line("      edgeseg calibrate --from PICTURES", "cyan")
        yield Line(f"      edgeseg {best.name}", "cyan")
    yield from _notes(findings)
    yield from _seen(findings)


def _verdict(findings: Examination) -> Iterator[Line]:
    purposes = [purpose for purpose in CAN if purpose != "base" and _applies(findings, purpose)]
    able = [CAN[purpose] for purpose in purposes if not findings.obstacles(purpose)]
    if able:
        yield Line(f"This machine can: {'; '.join(able)}.", "green")
    base = [check for check in findings.checks if check.blocks and check.purpose == "base"]
    if base:
        yield Line("It cannot run edgeseg yet, because:", "red")
    for check in base:
        yield from _trouble(check.found, check.hint)
    unable = [
        (purpose, [check for check in findings.obstacles(purpose) if check.purpose == purpose])
        for purpose in purposes
    ]
    if any(checks for _, checks in unable):
        yield Line("After that it could not:" if base else "It cannot:", "red")
    for purpose, checks in unable:
        for number, check in enumerate(checks):
            said = "and" if number else f"{CAN[purpose]}, because"
            yield from _trouble(f"{said} {check.found}", check.hint)


def _applies(findings: Examination, purpose: Purpose) -> bool:
    """Whether a purpose is relevant: DLA and CSI only on Jetsons, clusters only with Ray."""
    there = {check.name for check in findings.checks}
    if purpose in _JETSON_ONLY:
        return "Jetson" in there
    return purpose != "scale" or {"Ray", "PyAV"} <= there


def _notes(findings: Examination) -> Iterator[Line]:
    notes = [check for check in findings.checks if check.rule and not check.blocks]
    if notes:
        yield Line("")
        yield Line("It could do better:", "yellow")
    for check in notes:
        yield from _trouble(check.found, check.hint)


def _trouble(said: str, hint: str | None) -> Iterator[Line]:
    yield Line(f"  - {said}")
    for command in (hint or "").splitlines():
        yield Line(f"      {command}", "cyan")


def _seen(findings: Examination) -> Iterator[Line]:
    """Yield what works, in aligned columns."""
    there: list[Check] = [check for check in findings.checks if check.state == "ok"]
    width = max((len(check.name) for check in there), default=0)
    yield Line("")
    for check in there:
        yield Line(f"{check.name:<{width}}  {check.found}", "dim")
