"""The report as one HTML file: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeseg import __version__
from edgeseg.bench.document import BenchReport
from edgeseg.errors import RuntimeMissing
from edgeseg.machine import summary
from edgeseg.report import figures, tables
from edgeseg.report.contents import Contents, Picture, StreamSummary, headlines, labels, not_run
from edgeseg.report.method import machine_facts, method
from edgeseg.report.pictures import data_uri, fit

TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True)
class Bar:
    """One bar of a waterfall in percent of the width: where it begins, p50, and on to p99."""

    name: str
    start: float
    length: float
    tail: float
    text: str


@dataclass(frozen=True)
class Stack:
    """The stages of one engine as (name, percent of the width, ms), and their sum."""

    name: str
    parts: tuple[tuple[str, float, float], ...]
    total_ms: float


def render_html(contents: Contents) -> str:
    """The whole page; raises as :func:`edgeseg.report.write_report`."""
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise RuntimeMissing(
            f"reports need Jinja: {error}", mend="pip install 'edgeseg[report]'"
        ) from error
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
    )
    page = environment.get_template(TEMPLATE.name)
    return page.render(_values(contents, Markup)) + "\n"


def _values(contents: Contents, markup: type[str]) -> dict[str, Any]:
    """What the template shows. Only SVG that we drew is marked as safe to leave unescaped."""
    bench, training, stream = contents.bench, contents.training, contents.stream
    machine = contents.machine or (bench.machine if bench else None)
    pictures = fit(contents.pictures)
    drawn = [figures.latency_figure(bench), figures.trade_figure(bench)] if bench else []
    latency, trade = (drawn or [None, None])[:2]
    curves = figures.training_figures(training) if training else []
    return {
        "title": contents.title,
        "created": (bench.created if bench else datetime.now(timezone.utc)),
        "version": __version__,
        "summary": summary(machine) if machine else "",
        "headlines": headlines(contents),
        "bench": bench,
        "table": tables.bench_table(bench, wide=True) if bench and bench.runs else None,
        "details": tables.detail_table(bench) if bench and bench.runs else None,
        "absent": not_run(bench) if bench else [],
        "latency": markup(latency) if latency else None,
        "trade": markup(trade) if trade else None,
        "stacks": _stacks(bench) if bench else [],
        "training": training,
        "curves": [markup(figure) for figure in curves],
        "curves_png": _curves_uri(training.curves_png) if training and not curves else None,
        "stream": stream,
        "stages": tables.stage_table(stream) if stream and stream.stages_ms else None,
        "bars": _waterfall(stream) if stream else [],
        "predictions": _shown(pictures, "predictions"),
        "worst": _shown(pictures, "worst"),
        "method": method(bench) if bench else [],
        "machine": machine_facts(machine),
        "commands": contents.commands,
    }


def _shown(pictures: tuple[Picture, ...], section: str) -> list[Mapping[str, str]]:
    return [
        {
            "title": picture.title.rstrip(".") + ".",
            "caption": picture.caption,
            "uri": data_uri(picture),
        }
        for picture in pictures
        if picture.section == section
    ]


def _curves_uri(png: bytes | None) -> str | None:
    return None if png is None else data_uri(Picture("training curves", "", png))


def _stacks(bench: BenchReport) -> list[Stack]:
    """Median stages of each engine on one scale."""
    stages = [
        (name, {key: stage["p50"] for key, stage in run.stages_ms.items()})
        for name, run in zip(labels(bench.runs), bench.runs, strict=True)
        if run.stages_ms
    ]
    longest = max((sum(values.values()) for _, values in stages), default=0.0)
    return [
        Stack(
            name,
            tuple((key, _share(value, longest), value) for key, value in values.items()),
            sum(values.values()),
        )
        for name, values in stages
    ]


def _waterfall(stream: StreamSummary) -> list[Bar]:
    """Stages one after the other: each begins where the median of the one before ended."""
    known = [
        (name, stage["p50"] or 0.0, max(stage.get("p99") or 0.0, stage["p50"] or 0.0))
        for name, stage in stream.stages_ms.items()
        if stage.get("p50") is not None
    ]
    starts = [sum(middle for _, middle, _ in known[:place]) for place in range(len(known))]
    pairs = list(zip(starts, known, strict=True))
    width = max((start + tail for start, (_, _, tail) in pairs), default=0.0)
    return [
        Bar(
            name,
            _share(start, width),
            _share(middle, width),
            _share(tail - middle, width),
            f"{middle:.2f} / {tail:.2f}",
        )
        for start, (name, middle, tail) in pairs
    ]


def _share(value: float, whole: float) -> float:
    return round(100 * value / whole, 2) if whole > 0 else 0.0
