"""The report as one HTML file: no script, nothing loaded from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeseg import __version__
from edgeseg.benchmark.document import BenchReport, EngineAccuracy
from edgeseg.errors import RuntimeMissing
from edgeseg.machine import summary
from edgeseg.report import bars, classes, curves, figures, state, tables
from edgeseg.report.contents import (
    Contents,
    Picture,
    focus,
    headlines,
    not_run,
    other_notes,
    standing_out,
)
from edgeseg.report.entries import Entry, entries
from edgeseg.report.method import machine_facts, method
from edgeseg.report.pictures import data_uri, fit
from edgeseg.report.sweeps import sweep_figures
from edgeseg.report.worst import PANELS, WorstPictures

TEMPLATES = Path(__file__).parent

Mark = Callable[[str], str]
"""``markupsafe.Markup``, which marks the SVG that we drew as safe to leave unescaped."""


def render_html(contents: Contents) -> str:
    """The whole page; raises as :func:`edgeseg.report.write_report`."""
    return render("page.html.j2", lambda markup: _values(contents, markup))


def render(template: str, values: Callable[[Mark], dict[str, Any]]) -> str:
    """Fill a template of this folder.

    Raises:
        RuntimeMissing: Jinja is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError as error:
        raise RuntimeMissing(
            f"reports need Jinja: {error}", hint="pip install 'edgeseg[report]'"
        ) from error
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FileSystemLoader(TEMPLATES),
    )
    page = environment.get_template(template)
    return page.render(values(Markup) | {"version": __version__}) + "\n"


def _values(contents: Contents, markup: Mark) -> dict[str, Any]:
    """Variables of the page template."""
    bench, training, stream = contents.bench, contents.training, contents.stream
    machine = contents.machine or (bench.machine if bench else None)
    pictures = fit(contents.pictures)
    drawn = curves.training_figures(training) if training else []
    return {
        "title": contents.title,
        "created": (bench.created if bench else datetime.now(timezone.utc)),
        "summary": summary(machine) if machine else "",
        "headlines": headlines(contents),
        "bench": bench,
        "notes": other_notes(bench) if bench else [],
        "banner": standing_out(bench) if bench else [],
        "measured": _measured(contents, bench, markup) if bench else {},
        "recommendation": contents.recommendation,
        "training": training,
        "curves": [markup(figure) for figure in drawn],
        "curves_png": _curves_uri(training.curves_png) if training and not drawn else None,
        "stream": stream,
        "stages": tables.stage_table(stream) if stream and stream.stages_ms else None,
        "bars": bars.waterfall(stream) if stream else [],
        "predictions": [_shown(picture) for picture in pictures],
        "method": method(bench) if bench else [],
        "machine": machine_facts(machine),
        "state": state.state_table(bench) if bench else None,
        "during": state.during_sentence(bench) if bench else None,
        "energy": state.energy_sentence(bench) if bench else None,
        "commands": contents.commands,
    }


def _measured(contents: Contents, bench: BenchReport, markup: Mark) -> dict[str, Any]:
    """The figures and tables of a benchmark."""
    shown = entries(bench)
    best = focus(bench, contents.recommendation)
    scores = bench.accuracy_of(best) if best else None
    plots = {
        "trade": figures.trade_figure(shown),
        "histogram": figures.histogram_figure(shown),
        "latency": figures.latency_figure(shown),
    }
    return {
        "key": shown,
        **{name: markup(plot) if plot else None for name, plot in plots.items()},
        "sweeps": [markup(figure) for figure in sweep_figures(bench, shown)],
        "table": tables.bench_table(bench, wide=True) if bench.runs else None,
        "absent": not_run(bench),
        "stacks": bars.stage_stacks(shown),
        "starts": bars.start_stacks(shown),
        "memory": bars.single_bars(shown, lambda run: run.peak_rss_mib, "MiB"),
        "sizes": bars.single_bars(shown, lambda run: run.bytes / 2**20, "MiB"),
        "spent": bars.single_bars(shown, lambda run: run.energy_mj_per_frame, "mJ"),
        "percentiles": tables.latency_table(bench),
        "stages": tables.stages_table(bench),
        "details": tables.detail_table(bench),
        "focus": _name_of(shown, best.engine) if best else "",
        "heat": classes.heat_map(scores),
        "confusions": classes.confusions(scores),
        "worst": _worst(contents.worst, bench, shown),
    }


def _name_of(shown: Sequence[Entry], engine: str) -> str:
    return next((entry.label for entry in shown if entry.run.engine == engine), engine)


def _worst(
    worst: WorstPictures | None, bench: BenchReport, shown: Sequence[Entry]
) -> dict[str, Any] | None:
    """The drawn pictures with their scores, which the benchmark has."""
    if worst is None or not worst.pictures:
        return None
    scores = _scores(bench, worst.engine)
    return {
        "engine": _name_of(shown, worst.engine),
        "colours": worst.colours(),
        "pictures": [
            {
                "name": drawn.name,
                "iou": scores.get(drawn.name),
                "panels": [
                    (panel, data_uri(Picture(drawn.name, "", data)))
                    for panel, data in zip(PANELS, drawn.panels, strict=True)
                ],
            }
            for drawn in worst.pictures
        ],
    }


def _scores(bench: BenchReport, engine: str) -> dict[str, float | None]:
    entry: EngineAccuracy | None = next(
        (entry for entry in bench.accuracy if entry.engine == engine), None
    )
    return {picture.name: picture.iou for picture in entry.pictures} if entry else {}


def _shown(picture: Picture) -> Mapping[str, str]:
    title = picture.title.rstrip(".") + "."
    return {"title": title, "caption": picture.caption, "uri": data_uri(picture)}


def _curves_uri(png: bytes | None) -> str | None:
    return None if png is None else data_uri(Picture("training curves", "", png))
