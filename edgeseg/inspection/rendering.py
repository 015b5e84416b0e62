"""Print an inspection as groups of named lines, problems first.

All text from files goes through ``printable`` and into :class:`rich.text.Text`, so that neither
escape sequences nor markup in a class name reach the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeseg.artifacts.card import ModelCard, css_colour
from edgeseg.artifacts.documents import plural, printable
from edgeseg.artifacts.headers import FileContents
from edgeseg.artifacts.sidecar import WorstClass
from edgeseg.inspection.document import Inspection, Link, RunsHere

Line = tuple[str, "str | Text"]

_STATES = {"matches": "✓", "differs": "✗ other bytes", "absent": "✗ not here"}


def show(console: Console, found: Inspection) -> None:
    """Print one inspection."""
    console.print(Text(f"{printable(found.path)}: {found.kind}", style="bold"))
    for problem in found.problems:
        console.print(Text(f"  ✗ {printable(problem.message, 1000)}", style="red"))
        if problem.hint:
            console.print(Text(f"    hint: {printable(problem.hint, 1000)}"))
    for title, lines in _groups(found):
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in lines:
            text = value if isinstance(value, Text) else Text(printable(value, 1000))
            grid.add_row(Text(f"    {name}", style="dim"), text)
        if grid.row_count:
            console.print(Text(f"  {title}", style="bold"))
            console.print(grid)


def _groups(found: Inspection) -> Iterator[tuple[str, list[Line]]]:
    yield "file", list(_file(found))
    if found.contents is not None:
        yield "contents", list(_contents(found.contents))
    if found.card is not None:
        yield "network", list(_network(found.card))
        yield "input", list(_input(found.card))
        yield "classes", list(_classes(found.card))
    if found.sidecar is not None:
        yield "precision", list(_precision(found.sidecar))
        yield "made by", list(_made(found.sidecar))
        yield "accuracy gate", list(_gate(found.sidecar))
    if found.calibration is not None:
        told = found.calibration.model_dump(exclude_none=True)
        yield "calibration", [(key.replace("_", " "), str(value)) for key, value in told.items()]
    yield "made from", [_link(link) for link in found.chain]
    if found.runs_here is not None:
        yield "on this machine", list(_here(found.runs_here))


def _file(found: Inspection) -> Iterator[Line]:
    if found.bytes is not None:
        yield "size", f"{found.bytes:,} bytes"
    if found.sha256:
        yield "sha256", found.sha256
    if found.kind == "side-car" and found.vouched is not None:
        yield "artefact", "✓ has these bytes" if found.vouched else "✗ has other bytes"
    elif found.vouched is not None:
        yield "side-car", "✓ vouches for these bytes" if found.vouched else "✗ is for others"
    elif found.kind in ("checkpoint", "network", "engine"):
        yield "side-car", "none"


def _contents(contents: FileContents) -> Iterator[Line]:
    yield "format", contents.format
    if contents.producer:
        yield "producer", contents.producer
    if contents.opsets:
        yield "opsets", ", ".join(f"{name} {number}" for name, number in contents.opsets.items())
    for role, ports in (("input", contents.inputs), ("output", contents.outputs)):
        for port in ports:
            yield role, f"{port.name} {port.dtype} ({', '.join(map(str, port.shape))})"
    if contents.operators:
        total = sum(contents.operators.values())
        listed = ", ".join(f"{count} {name}" for name, count in contents.operators.items())
        yield "nodes", f"{total}: {listed}"
    if contents.parameters is not None:
        types = ", ".join(f"{count:,} {name}" for name, count in contents.elements.items())
        yield "parameters", f"{contents.parameters:,} in {contents.tensors} tensors: {types}"


def _network(card: ModelCard) -> Iterator[Line]:
    yield "name", card.name
    yield "architecture", _pairs(card.arch, card.options)
    yield "output", {"labels_u8": "label map, uint8", "logits": "logits, float32"}[card.output]
    if card.dataset:
        yield "trained on", card.dataset
    if card.metrics:
        yield "then", ", ".join(f"{name} {value:.4g}" for name, value in card.metrics.items())
    yield "made", f"{card.created:%Y-%m-%d %H:%M} by edgeseg {card.edgeseg_version or 'unknown'}"


def _input(card: ModelCard) -> Iterator[Line]:
    spec = card.input
    yield "size", f"{spec.width}x{spec.height}, {spec.resize}, {spec.reduce}"
    yield "colour", f"{spec.color}, (value × {spec.scale:.6g} - mean) / std"
    yield "mean", ", ".join(f"{value:.6g}" for value in spec.mean)
    yield "std", ", ".join(f"{value:.6g}" for value in spec.std)


def _classes(card: ModelCard) -> Iterator[Line]:
    pairs = zip(card.classes.names, card.classes.palette, strict=True)
    for index, (name, colour) in enumerate(pairs):
        swatch = Text("    ", style=f"on {css_colour(colour)}")
        note = " (background)" if index == card.classes.background else ""
        swatch.append(f" {css_colour(colour)} {printable(name)}{note}", style="default on default")
        yield str(index), swatch
    if card.classes.background is None:
        yield "background", "none, overlays paint every class"
    yield str(card.classes.ignore), "left out of loss and metrics"


def _precision(made: dict[str, Any]) -> Iterator[Line]:
    report = made["precision"]
    if report is None:
        return
    yield "precision", report["precision"]
    yield (
        "low precision",
        (
            f"{report['low_precision_share']:.1%} of multiply-accumulates, "
            f"{report['low_precision_weights']:.1%} of weights"
        ),
    )
    if report["kept"]:
        yield "kept higher", ", ".join(report["kept"])


def _made(made: dict[str, Any]) -> Iterator[Line]:
    """All but what has a group of its own, so that new fields of side-cars appear as well."""
    yield "runtime", f"{made['runtime']} {made['runtime_version']}"
    elsewhere = {"schema_version", "runtime", "runtime_version", "precision", "gate"}
    for key, value in made.items():
        if key in elsewhere or value in (None, [], {}):
            continue
        text = _pairs("", value) if isinstance(value, dict) else value
        listed = ", ".join(map(str, text)) if isinstance(text, list) else str(text)
        yield key.replace("_", " "), listed


def _gate(made: dict[str, Any]) -> Iterator[Line]:
    gate = made["gate"]
    if gate is None:
        return
    verdict = "✓ passed" if gate["passed"] else "✗ failed"
    yield (
        "verdict",
        f"{verdict}, judged on {gate['judged_on']} with {plural(gate['images'], 'picture')}",
    )
    yield (
        gate["metric"].replace("_", " "),
        (
            f"{gate['value']:.2%} (FP32 {gate['reference']:.2%}), lost {gate['drop']:.2%} "
            f"of {gate['limit']:.2%} allowed"
        ),
    )
    if gate.get("worst_class"):
        yield "worst class", WorstClass.model_validate(gate["worst_class"]).describe()


def _link(link: Link) -> Line:
    where = f"  {link.path}" if link.path else ""
    return link.role, f"{_STATES[link.state]}{where}  sha256 {link.sha256[:12]}…"


def _here(runs: RunsHere) -> Iterator[Line]:
    yield "runs", f"✓ in {runs.runtime}" if runs.runs else f"✗ {runs.reason}"
    if runs.hint:
        yield "hint", runs.hint


def _pairs(first: str, values: dict[str, Any]) -> str:
    return " ".join([*([first] if first else []), *(f"{k}={v}" for k, v in values.items())])
