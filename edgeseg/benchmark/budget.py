"""Recommend one of the measured engines for a time budget per frame.

The most accurate of those whose 95th percentile lies within the budget: not p95 itself
but the upper end of its interval is compared. Nothing is estimated that was not
measured; where no engine fits, what to try next is named without a promise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgeseg.artifacts.documents import Document
from edgeseg.benchmark import significance
from edgeseg.benchmark.document import BenchReport, Run
from edgeseg.benchmark.significance import bootstrap_of
from edgeseg.errors import UsageError
from edgeseg.metrics import Interval

POINT = "p95"
"""The percentile of a call, end to end, that must fit."""

_UNITS = {"ms": 1.0, "s": 1000.0}


class BudgetRow(Document):
    """A row compared with the budget; keys as in :class:`edgeseg.benchmark.document.Run`.

    Attributes:
        p95_ms: 95th percentile of a call.
        p95_upper_ms: Upper end of its interval, which must fit; None if there is no interval.
        fits: Whether the interval fits the budget and the accuracy is known.
        why: Clause that states the margin, or what else rules it out.
    """

    engine: str
    name: str
    precision: str
    runtime: str
    threads: int | None
    arch: str | None
    options: dict[str, bool | int | float | str]
    size: tuple[int, int] | None
    p95_ms: float | None
    p95_upper_ms: float | None
    mean_iou: float | None
    mean_iou_interval: Interval | None
    fits: bool
    why: str


class Recommendation(Document):
    """The recommended engine and its alternatives.

    Attributes:
        budget: The requested budget.
        budget_ms: The budget in milliseconds per frame.
        point: The percentile whose upper interval end must fit.
        chosen: The most accurate engine that fits; None if none does.
        why: Sentence that explains the choice.
        runners_up: Other engines that fit, the most accurate first.
        refused: Engines that do not fit, the nearest to the budget first.
        advice: Sentences on what else to consider, or to try if none fits.
    """

    budget: str
    budget_ms: float
    point: str = POINT
    chosen: BudgetRow | None
    why: str
    runners_up: tuple[BudgetRow, ...]
    refused: tuple[BudgetRow, ...]
    advice: tuple[str, ...]


def focus(bench: BenchReport, advice: Recommendation | None = None) -> Run | None:
    """The engine shown in detail: the recommended one, else that of the lowest median."""
    if advice is not None and advice.chosen is not None:
        chosen = advice.chosen.engine, advice.chosen.threads
        named = [r for r in bench.runs if (r.engine, r.threads) == chosen and (r.batch or 1) == 1]
        if named:
            return named[0]
    timed = [run for run in bench.runs if run.latency_ms]
    return min(timed, key=lambda run: (run.latency_ms or {})["p50"], default=None)


def parse_budget(text: str) -> float:
    """Parse ``15ms``, ``0.015s`` or ``66fps`` to milliseconds per frame; raises UsageError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|fps)\s*", text, re.IGNORECASE)
    value = float(found[1]) if found else 0.0
    if not found or value <= 0:
        raise UsageError(f"--budget takes a time or a rate, e.g. 15ms or 66fps, not {text!r}")
    unit = found[2].lower()
    return 1000 / value if unit == "fps" else value * _UNITS[unit]


def check_budget(text: str | None, *, labelled: bool) -> None:
    """Raise UsageError for an invalid budget, or one without labels, before measuring."""
    if text is None:
        return
    parse_budget(text)
    if not labelled:
        raise UsageError(
            "--budget recommends the most accurate engine, which needs labelled pictures",
            hint="give labelled pictures with --data",
        )


def recommend(report: BenchReport, budget: str) -> Recommendation:
    """The most accurate engine of a benchmark whose p95 interval lies within the budget.

    Raises:
        UsageError: ``budget`` is none, no engine ran, or none was scored on labelled pictures.
    """
    limit = parse_budget(budget)
    timed = [run for run in report.runs if run.latency_ms]
    if not any(run.mean_iou is not None for run in timed):
        raise UsageError(
            "--budget recommends the most accurate engine, but no engine was scored",
            hint="give labelled pictures with --data, and engines that run on this machine",
        )
    rows = [(_candidate(run, limit), run) for run in timed]
    fitting = [row for row in rows if row[0].fits]
    # The most accurate first, of equals the fastest.
    fitting.sort(key=lambda row: (-(row[0].mean_iou or 0.0), _upper(row[0])))
    refused = sorted((one for one, _ in rows if not one.fits), key=_upper)
    advice = []
    if report.noisy:
        advice = ["The run was noisy: measure again on a quiet machine before relying on this."]
    if fitting:
        (chosen, run), others = fitting[0], fitting[1:]
        advice = [*_nearly_as_good(report, run, [other for _, other in others]), *advice]
        why = f"{_named(chosen)}: the most accurate of {len(fitting)} that fit; {chosen.why}."
    else:
        chosen, others = None, []
        advice = [*advice, *_to_try(report, timed)]
        why = f"None of {len(rows)} fits: {_nearest(refused, limit)}"
    return Recommendation(
        budget=budget.strip(),
        budget_ms=round(limit, 4),
        chosen=chosen,
        why=why,
        runners_up=tuple(one for one, _ in others),
        refused=tuple(refused),
        advice=tuple(advice),
    )


def _candidate(run: Run, limit: float) -> BudgetRow:
    point, interval = (run.latency_ms or {})[POINT], (run.latency_interval_ms or {}).get(POINT)
    fits, why = _held_against(run, interval, limit)
    network = run.network
    return BudgetRow(
        engine=run.engine,
        name=run.name,
        precision=run.precision,
        runtime=run.runtime,
        threads=run.threads,
        arch=network.arch if network else None,
        options=network.options if network else {},
        size=network.size if network else None,
        p95_ms=point,
        p95_upper_ms=interval[1] if interval else None,
        mean_iou=run.mean_iou,
        mean_iou_interval=run.mean_iou_interval,
        fits=fits,
        why=why,
    )


def _held_against(run: Run, interval: Interval | None, limit: float) -> tuple[bool, str]:
    if (run.batch or 1) != 1:
        return False, f"takes {run.batch} pictures per call, but a budget is per frame"
    if interval is None:
        return False, f"its {POINT} has no interval: too few blocks were measured"
    spare = limit - interval[1]
    reach = f"{POINT} is at most {interval[1]:.4g} ms"
    if spare < 0:
        return False, f"{reach}, {-spare:.3g} ms over the budget"
    if run.mean_iou is None:
        return False, f"{reach}, but it was not scored on labelled pictures"
    return True, f"{reach}, {spare:.3g} ms to spare"


def _upper(one: BudgetRow) -> float:
    return float("inf") if one.p95_upper_ms is None else one.p95_upper_ms


def _nearest(refused: Sequence[BudgetRow], limit: float) -> str:
    late = [one for one in refused if one.p95_upper_ms is not None and one.p95_upper_ms > limit]
    if not late:
        return "see why each was refused."
    return f"the nearest is {_named(late[0])}, whose {late[0].why}."


def _nearly_as_good(report: BenchReport, chosen: Run, others: Sequence[Run]) -> Iterator[str]:
    """The fastest runner-up that is not significantly less accurate, if there is one."""
    best, plan = report.accuracy_of(chosen), bootstrap_of(report.config)
    quickest = sorted(others, key=lambda run: (run.latency_ms or {})[POINT])
    for run in quickest:
        scores = report.accuracy_of(run)
        gained = (chosen.latency_ms or {})[POINT] - (run.latency_ms or {})[POINT]
        if best is None or scores is None or gained <= 0 or scores.engine == best.engine:
            continue
        gain, p = significance.gain_in_mean_iou(
            significance.counts_of(best),
            significance.counts_of(scores),
            replace(plan, resamples=plan.resamples or 1000),
        )
        if p > 1 - report.config.confidence:
            ends = f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}".replace("-", "−")
            yield (
                f"{Path(run.engine).name} ({run.name}, {run.runtime}) is {gained:.3g} ms faster "
                f"at {POINT} and not significantly less accurate: {ends} points of mean IoU."
            )
            return


def _to_try(report: BenchReport, timed: Sequence[Run]) -> Iterator[str]:
    """Suggest unmeasured alternatives that may be faster, without estimates."""
    runtimes, precisions = (
        {getattr(run, key) for run in timed} for key in ("runtime", "precision")
    )
    if "int8" not in precisions:
        yield "Try INT8: edgeseg calibrate --from PICTURES, then edgeseg build --int8 --data DIR."
    if report.machine.gpus and not any(name.startswith("tensorrt") for name in runtimes):
        yield "Try TensorRT on this GPU: edgeseg build --int8 --runtime tensorrt."
    elif "openvino" not in runtimes:
        yield "Try OpenVINO: edgeseg build --int8 --runtime openvino."
    threads = max((run.threads or 0 for run in timed), default=0)
    if 0 < threads < int(report.machine.usable_cores):
        yield f"Try more threads than {threads}: --threads {int(report.machine.usable_cores)}."
    networks = [run.network for run in timed if run.network]
    if networks:
        width, height = min((one.size for one in networks), key=lambda size: size[0] * size[1])
        yield f"Train at a smaller size than {width}x{height}: edgeseg train --size WIDTHxHEIGHT."
    if widths := [one.options["width"] for one in networks if "width" in one.options]:
        yield f"Train a narrower network than width {min(widths)}: edgeseg train --width N."


def _named(one: BudgetRow) -> str:
    size = f" at {one.size[0]}x{one.size[1]}" if one.size else ""
    return f"{one.name}{size}, {one.precision.upper()} in {one.runtime}"
