"""Turn the parts of a report into its structure, once for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from edgeseg import __version__
from edgeseg.artifacts.documents import plural
from edgeseg.benchmark.budget import BudgetRow, Recommendation, focus
from edgeseg.benchmark.document import BenchReport, EngineAccuracy
from edgeseg.data.panels import PANELS, WorstPictures
from edgeseg.machine import Machine, summary
from edgeseg.report import bars, figures, tables, tree
from edgeseg.report.contents import (
    Contents,
    Entry,
    Picture,
    StreamSummary,
    TrainingSummary,
    entries,
    headlines,
    not_run,
    other_notes,
    standing_out,
)
from edgeseg.report.figures import sweep_figures, training_figures
from edgeseg.report.method import (
    during_sentence,
    energy_sentence,
    machine_facts,
    method,
    state_table,
)
from edgeseg.report.tree import Bars, Bullets, Figure, Paragraph, grid, section, some


def page_of(contents: Contents) -> tree.Page:
    """The whole report; a section appears with its part."""
    bench = contents.bench
    machine = contents.machine or (bench.machine if bench else None)
    created = bench.created if bench else datetime.now(timezone.utc)
    meta = [f"{created:%Y-%m-%d %H:%M} UTC · edgeseg {__version__}"]
    if machine:
        meta.append(summary(machine))
    blocks = some(
        *(banners(standing_out(bench)) if bench else ()),
        tree.Headlines(headlines(contents)),
        *(_bench(contents, bench) if bench else ()),
        _stream(contents.stream) if contents.stream else None,
        _training(contents.training) if contents.training else None,
        section("Predictions", *contents.pictures),
        method_section(method(bench)) if bench else None,
        _machine(machine, bench),
        section("Commands", tree.Code(contents.commands)),
    )
    return tree.Page(contents.title, [Paragraph(line, style="meta") for line in meta], blocks)


def banners(warnings: Sequence[tuple[str, Sequence[str]]]) -> list[tree.Box]:
    """Warnings for the top of a page, each with its reasons."""
    return [tree.Box("banner", title, some(Bullets(reasons))) for title, reasons in warnings]


def notes(sentences: Sequence[str]) -> tree.Box | None:
    """What a reader should know beside the figures, None if nothing."""
    return tree.Box("notes", "Notes", [Bullets(sentences)]) if sentences else None


def method_section(paragraphs: Sequence[str]) -> tree.Section | None:
    """How the figures were measured."""
    return section("Method", *map(Paragraph, paragraphs))


def _bench(contents: Contents, bench: BenchReport) -> list[tree.Block | None]:
    shown = entries(bench)
    best = focus(bench, contents.recommendation)
    scores = bench.accuracy_of(best) if best else None
    name = _name_of(shown, best.engine) if best else ""
    absent = " ".join(not_run(bench))
    return [
        _advice(contents.recommendation) if contents.recommendation else None,
        section(
            "Engines",
            tables.bench_table(bench, wide=True) if bench.runs else None,
            Paragraph(absent, "Not run here.", "meta") if absent else None,
            notes(other_notes(bench)),
            tree.Key(shown),
            grid(*_plots(bench, shown)),
        ),
        section(
            "Where the time goes",
            Bars(
                bars.stage_stacks(shown),
                caption="Bars are medians of the stages, from a picture to the label map at the "
                "picture's size; the number is the median of a whole call.",
            ),
            section("Latency per call", tables.latency_table(bench)),
            section("Latency per stage", tables.stages_table(bench)),
        ),
        _resources(bench, shown),
        section(
            "Confusion between classes",
            Paragraph(
                f"{name}. A row is a true class, its cells what its pixels were labelled, in "
                "per cent.",
                style="meta",
            )
            if scores and scores.confusion
            else None,
            tree.Heat(bars.heat_map(scores)),
            Bullets(bars.confusions(scores)),
        ),
        _worst(contents.worst, bench, shown) or _worst_scores(name, scores),
    ]


def _plots(bench: BenchReport, shown: Sequence[Entry]) -> list[Figure | None]:
    captions = (
        (
            figures.trade_figure(shown),
            "Accuracy against latency.",
            "Up and to the left is better. The line joins the engines on the Pareto front (filled "
            "marks). Bars: intervals of the median and of the drop against FP32. The vertical "
            "axis spans at least two points.",
        ),
        (
            figures.histogram_figure(shown),
            "Latency histogram.",
            "Each row is scaled to its own peak; the stroke is the median.",
        ),
        (
            figures.latency_figure(shown),
            "Cumulative distribution of the latency.",
            "A steep curve is a steady engine; the slowest 1 % may lie beyond the right edge.",
        ),
        *(
            (plot, "Throughput.", "Bars are intervals; all else is as in the other figures.")
            for plot in sweep_figures(bench, shown)
        ),
    )
    return [Figure(plot, title, caption) if plot else None for plot, title, caption in captions]


def _resources(bench: BenchReport, shown: Sequence[Entry]) -> tree.Section | None:
    starts = bars.start_stacks(shown)
    memory = bars.single_bars(shown, lambda run: run.peak_rss_mib, "MiB")
    sizes = bars.single_bars(shown, lambda run: run.bytes / 2**20, "MiB")
    energy = bars.single_bars(shown, lambda run: run.energy_mj_per_frame, "mJ")
    drawn = (
        ("Start-up to the first label map", starts, "A new process, files in the page cache."),
        ("Peak memory", memory, "Resident memory of such a process."),
        ("Size of the engine", sizes, "The file alone."),
        ("Energy per picture", energy, "Sum of all sensors."),
    )
    sentence = energy_sentence(bench)
    return section(
        "Start-up, memory, size and energy" if energy else "Start-up, memory and size",
        grid(*(section(title, Bars(stacks, caption=text)) for title, stacks, text in drawn)),
        Paragraph(sentence, style="meta") if sentence else None,
        tables.detail_table(bench),
    )


def _advice(found: Recommendation) -> tree.Box:
    chosen = f": {found.chosen.engine.rpartition('/')[2]}" if found.chosen else ""
    lists = (
        ("Also within the budget, most accurate first:", found.runners_up),
        ("Over the budget, nearest first:", found.refused),
    )
    return tree.Box(
        "advice",
        f"For a budget of {found.budget}{chosen}",
        some(
            Paragraph(found.why),
            Bullets(found.advice),
            *(
                block
                for title, rows in lists
                if rows
                for block in (Paragraph(title), Bullets([_candidate(one) for one in rows]))
            ),
        ),
    )


def _candidate(one: BudgetRow) -> str:
    """``small at 256×128, INT8 in onnxruntime, 2 threads: mean IoU 84.2 %, …``."""
    size = f" at {one.size[0]}×{one.size[1]}" if one.size else ""
    threads = f", {plural(one.threads, 'thread')}" if one.threads else ""
    score = f"mean IoU {100 * (one.mean_iou or 0):.1f} %, " if one.fits else ""
    where = f"{one.precision.upper()} in {one.runtime}"
    return f"{one.name}{size}, {where}{threads}: {score}{one.why}"


def _worst(
    worst: WorstPictures | None, bench: BenchReport, shown: Sequence[Entry]
) -> tree.Section | None:
    """The drawn pictures with their scores, which the benchmark has."""
    if worst is None or not worst.pictures:
        return None
    found = next((entry for entry in bench.accuracy if entry.engine == worst.engine), None)
    scores = {picture.name: picture.iou for picture in found.pictures} if found else {}
    rows = [
        (
            drawn.name,
            _iou(scores.get(drawn.name)),
            [Picture(panel, "", data) for panel, data in zip(PANELS, drawn.panels, strict=True)],
        )
        for drawn in worst.pictures
    ]
    return section(
        "Worst pictures",
        Paragraph(f"{_name_of(shown, worst.engine)}.", style="meta"),
        tree.Panels(worst.colours(), rows),
    )


def _worst_scores(name: str, scores: EngineAccuracy | None) -> tree.Section | None:
    if scores is None:
        return None
    rows = [f"{picture.name}: {_iou(picture.iou)}" for picture in scores.worst(5)]
    return section("Worst pictures", Paragraph(f"{name}.", style="meta"), Bullets(rows))


def _iou(value: float | None) -> str:
    return "mean IoU –" if value is None else f"mean IoU {100 * value:.1f} %"


def _name_of(shown: Sequence[Entry], engine: str) -> str:
    return next((entry.label for entry in shown if entry.run.engine == engine), engine)


def _stream(stream: StreamSummary) -> tree.Section | None:
    alone = f" (engine alone: {stream.inference_fps:.1f} fps)" if stream.inference_fps else ""
    memory = f"; peak memory {stream.peak_rss_mib:.0f} MiB" if stream.peak_rss_mib else ""
    sources = [
        source.label
        + (f": {source.state}" if source.state else "")
        + (f", {plural(source.reconnects, 'reconnect')}" if source.reconnects is not None else "")
        for source in stream.sources
    ]
    return section(
        "Stream",
        Paragraph(
            f"{plural(stream.frames, 'frame')} in {stream.seconds:.1f} s: "
            f"{stream.fps:.1f} fps{alone}. {plural(stream.dropped, 'frame')} dropped{memory}."
        ),
        Bars(
            bars.waterfall(stream),
            "Stages of a frame.",
            "Numbers are p50 / p99. Each stage begins where the median of the one before ended.",
        ),
        section("Percentiles", tables.stage_table(stream)) if stream.stages_ms else None,
        *(Paragraph(text, style="meta") for text in sources),
    )


def _training(training: TrainingSummary) -> tree.Section | None:
    plots = training_figures(training)
    names = [name for name in (training.arch, training.dataset) if name]
    epochs = plural(training.epochs or len(training.history), "epoch")
    time = "" if training.seconds is None else f" in {training.seconds:.0f} s"
    score = (
        ""
        if training.val_mean_iou is None
        else f"; best mean IoU on the validation pictures: {100 * training.val_mean_iou:.1f} %"
    )
    curves = Picture("Training curves", "", training.curves_png) if training.curves_png else None
    return section(
        "Training",
        Paragraph(f"{' on '.join(names)}{', ' if names else ''}{epochs}{time}{score}."),
        grid(*map(Figure, plots)) if plots else curves,
    )


def _machine(machine: Machine | None, bench: BenchReport | None) -> tree.Section | None:
    table = state_table(bench) if bench else None
    sentence = during_sentence(bench) if bench else None
    return section(
        "Machine",
        tree.Facts(machine_facts(machine)),
        section("Before and after", table) if table else None,
        Paragraph(sentence, style="meta") if sentence else None,
    )
