"""Compare two benchmarks row by row, and separate significant changes from noise.

Latency: the ratio of the medians of the blocks, its bootstrap interval over blocks, and the
Mann-Whitney test of the block medians. Accuracy: the paired bootstrap over the labelled
pictures. Both with Holm's correction over the rows, so that a table of many rows flags none by
luck more often than its level. Memory and file size are single figures, which no test can judge:
they are compared with a threshold alone.

A difference must be both sure and large enough to matter. It is as sure as two runs can make
it: what varies from run to run and not within one, such as where memory came to lie, is not in
an interval over blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.benchmark import significance
from edgeseg.benchmark.comparison import (
    ComparedRow,
    Comparison,
    FigureChange,
    Side,
    Verdict,
    describe,
)
from edgeseg.benchmark.document import BenchReport, EngineAccuracy, Run
from edgeseg.errors import EdgesegError, MismatchedArtifact, RegressionError, UsageError
from edgeseg.machine import Machine, summary
from edgeseg.metrics import Bootstrap, Interval
from edgeseg.options.benchmark import CompareConfig, Metric


def differences(before: BenchReport, after: BenchReport) -> Iterator[str]:
    """Yield a clause for each difference that makes the two incomparable.

    Another processor, another GPU, clocks under another rule, another number of threads, other
    pictures. Versions of software are none of these: see :func:`versions_changed`.
    """
    facts = zip(_facts(before).items(), _facts(after).values(), strict=True)
    yield from (
        f"{name}: {_or_none(one)}, then {_or_none(two)}" for (name, one), two in facts if one != two
    )
    if data_of(before) != data_of(after):
        yield "labelled pictures: other files"


def versions_changed(before: BenchReport, after: BenchReport) -> Iterator[str]:
    """``onnxruntime: 1.31.0, then 1.32.0`` for each version that differs, system included."""
    one, two = _versions(before.machine), _versions(after.machine)
    for name in sorted({*one, *two}):
        if one.get(name) != two.get(name):
            yield f"{name}: {_or_none(one.get(name))}, then {_or_none(two.get(name))}"


def _facts(report: BenchReport) -> Mapping[str, object]:
    machine, state = report.machine, report.before
    governors = ", ".join(state.governors) if state else ""
    return {
        "processor": machine.cpu,
        "architecture": machine.architecture,
        "cores that may be used": f"{machine.usable_cores:g} of {machine.cores}",
        "board": machine.board,
        "GPU": ", ".join(gpu.name for gpu in machine.gpus),
        "governor": governors or machine.governor,
        "power mode": state.power_mode if state else None,
        "fixed clocks": state.jetson_clocks if state else None,
        "threads asked for": report.config.threads,
        "pictures timed": report.pictures,
        "labelled pictures": report.labelled,
    }


def data_of(report: BenchReport) -> str | None:
    """The hash of the labelled pictures, None where there were none."""
    return report.data.sha256 if report.data else None


def _versions(machine: Machine) -> dict[str, str]:
    drivers = {gpu.driver for gpu in machine.gpus if gpu.driver}
    system = {"system": machine.os, "kernel": machine.kernel}
    return machine.versions | system | ({"driver": ", ".join(sorted(drivers))} if drivers else {})


def _or_none(value: object) -> str:
    return "none" if value in (None, "") else str(value)


Pair = tuple[Run, Run]
Key = tuple[str, str, str, str, int | None, int | None]
METRICS: tuple[Metric, ...] = ("latency", "mean_iou", "memory", "size")


@dataclass
class Found:
    """A change that is not judged yet, as :class:`FigureChange`.

    Attributes:
        p: Corrected once all rows are known.
        doubt: Why there is no verdict.
    """

    metric: Metric
    before: float
    after: float
    change: float
    interval: Interval | None = None
    p: float | None = None
    doubt: str | None = None


def compare(
    before: BenchReport,
    after: BenchReport,
    config: CompareConfig | None = None,
    names: tuple[str, str] = ("before", "after"),
) -> Comparison:
    """Compare two benchmarks.

    Args:
        names: Names of the two, e.g. of their files.

    Raises:
        UsageError: They share no row, or a value of ``config`` is out of its range.
    """
    config = config or CompareConfig()
    config.check()
    pairs, only_before, only_after = match(before.runs, after.runs)
    if not pairs:
        raise UsageError(
            f"{names[0]} and {names[1]} share no row of one engine, runtime, precision, batch and "
            f"threads: {'; '.join(map(describe, only_before)) or 'nothing was measured'}, against "
            f"{'; '.join(map(describe, only_after)) or 'nothing'}",
            hint="measure the same engines with the same options both times",
        )
    unlike = tuple(differences(before, after))
    found = [list(_look(pair, before, after, config)) for pair in pairs]
    _correct([one for row in found for one in row])
    rows = tuple(_row(one, row, config) for (one, _), row in zip(pairs, found, strict=True))
    return Comparison(
        config=config,
        before=_side(before, names[0]),
        after=_side(after, names[1]),
        like_with_like=not unlike,
        differences=unlike,
        versions=tuple(versions_changed(before, after)),
        rows=rows,
        only_before=tuple(map(describe, only_before)),
        only_after=tuple(map(describe, only_after)),
        notes=tuple(_notes(rows, config)),
    )


def origins(before: Path, after: Path) -> tuple[str, str]:
    """Names for two files: their file names, with the folder if those are equal."""
    if before.name != after.name:
        return before.name, after.name
    return "/".join(before.parts[-2:]), "/".join(after.parts[-2:])


def regression(found: Comparison) -> EdgesegError | None:
    """The error of a comparison that must not have a regression, None where it has none."""
    if not found.like_with_like:
        return MismatchedArtifact(
            f"{found.before.origin} and {found.after.origin} cannot be compared: "
            f"{'; '.join(found.differences)}",
            hint="measure both on one machine, with the same options and pictures",
        )
    worse = found.regressions()
    if not worse:
        return None
    return RegressionError(
        f"{found.after.origin} is worse than {found.before.origin}: {'; '.join(worse)}"
    )


def match(before: Sequence[Run], after: Sequence[Run]) -> tuple[list[Pair], list[Run], list[Run]]:
    """Pair the rows that ran: by the path they were given as, else by network and file name.

    Ambiguous rows stay unpaired; unpaired rows are returned, too.
    """
    left, right = ([run for run in side if run.latency_ms] for side in (before, after))
    order, pairs = list(left), []
    for key in (_by_path, _by_name):
        ours, theirs = _unique(left, key), _unique(right, key)
        for name in [name for name in ours if name in theirs]:
            pairs.append((ours[name], theirs[name]))
            left.remove(ours[name])
            right.remove(theirs[name])
    return sorted(pairs, key=lambda pair: order.index(pair[0])), left, right


def _by_path(run: Run) -> Key:
    return run.engine, run.name, run.runtime, run.precision, run.batch, run.threads


def _by_name(run: Run) -> Key:
    return Path(run.engine).name, *_by_path(run)[1:]


def _unique(runs: Sequence[Run], key: Callable[[Run], Key]) -> dict[Key, Run]:
    often = Counter(map(key, runs))
    return {key(run): run for run in runs if often[key(run)] == 1}


def _look(
    pair: Pair, before: BenchReport, after: BenchReport, config: CompareConfig
) -> Iterator[Found]:
    """Compare all metrics that both sides of a row have."""
    one, two = pair
    found = _latency(one, two, config)
    loud = [which for which, side in (("first", before), ("second", after)) if side.noisy]
    if loud:
        found.doubt = f"noisy: the {' and the '.join(loud)} run"
    yield found
    scores = before.accuracy_of(one), after.accuracy_of(two)
    if scores[0] and scores[1]:
        found = _accuracy(scores[0], scores[1], config)
        if data_of(before) != data_of(after):
            found.doubt = "scored on other files"
        yield found
    if one.peak_rss_mib and two.peak_rss_mib:
        yield Found(
            "memory", one.peak_rss_mib, two.peak_rss_mib, two.peak_rss_mib / one.peak_rss_mib
        )
    if one.bytes and two.bytes:
        yield Found("size", one.bytes, two.bytes, two.bytes / one.bytes)


def _latency(one: Run, two: Run, config: CompareConfig) -> Found:
    before, after = blocks = [
        [block.median_ms for block in run.block_series if block.kept] for run in (one, two)
    ]
    if min(map(len, blocks)) < 2:
        middles = [(run.latency_ms or {})["p50"] for run in (one, two)]
        doubt = "too few blocks: fewer than two"
        return Found("latency", middles[0], middles[1], middles[1] / middles[0], doubt=doubt)
    ratio = significance.ratio_of_medians(before, after, _bootstrap(config))
    middles = [float(np.median(side)) for side in blocks]
    p = significance.mann_whitney(*blocks)
    ends = ratio.low, ratio.high
    return Found("latency", middles[0], middles[1], ratio.value, ends, p)


def _accuracy(one: EngineAccuracy, two: EngineAccuracy, config: CompareConfig) -> Found:
    before, after = significance.counts_of(one), significance.counts_of(two)
    scores = float(before.mean_iou()[0]), float(after.mean_iou()[0])
    names = [[picture.name for picture in side.pictures] for side in (one, two)]
    if names[0] != names[1] or one.classes != two.classes:
        doubt = "scored on other pictures or classes"
        return Found("mean_iou", *scores, scores[1] - scores[0], doubt=doubt)
    if len(before) < 2:
        return Found("mean_iou", *scores, scores[1] - scores[0], doubt="scored on one picture")
    gain, p = significance.gain_in_mean_iou(before, after, _bootstrap(config))
    return Found("mean_iou", *scores, gain.value, (gain.low, gain.high), p)


def _bootstrap(config: CompareConfig) -> Bootstrap:
    return Bootstrap(config.resamples, 1 - config.level, config.seed)


def _correct(found: Sequence[Found]) -> None:
    """Correct the p-values of each metric together; one in doubt counts as not tested."""
    for one in found:
        if one.doubt:
            one.p = None
    for metric in METRICS:
        tested = [(one, one.p) for one in found if one.metric == metric and one.p is not None]
        corrected = significance.holm([p for _, p in tested])
        for (one, _), p in zip(tested, corrected, strict=True):
            one.p = p


def _row(run: Run, found: Sequence[Found], config: CompareConfig) -> ComparedRow:
    keys = ("engine", "name", "runtime", "precision", "batch", "threads")
    return ComparedRow(
        **{key: getattr(run, key) for key in keys},
        changes=tuple(_change(one, config) for one in found),
    )


def _change(found: Found, config: CompareConfig) -> FigureChange:
    verdict, why = _verdict(found, config)
    return FigureChange(
        metric=found.metric,
        before=found.before,
        after=found.after,
        change=found.change,
        interval=found.interval,
        p=found.p,
        verdict=verdict,
        why=why,
    )


def _verdict(found: Found, config: CompareConfig) -> tuple[Verdict, str]:
    """Better or worse where the difference is both sure and large enough to matter."""
    if found.doubt:
        return "inconclusive", found.doubt
    # Of each metric but accuracy less is better, and the scale is that of ratios.
    ratio = found.metric != "mean_iou"
    limit = config.threshold(found.metric)
    high, low, still = (1 + limit, 1 / (1 + limit), 1.0) if ratio else (limit, -limit, 0.0)
    small = low < found.change < high or found.change == still
    direction: Verdict = "worse" if (found.change > still) == ratio else "better"
    threshold = f"{100 * limit:.3g} {'%' if ratio else 'points'}"
    if found.interval is None or found.p is None:
        if small:
            return "same", f"less than {threshold}"
        return direction, f"{threshold} or more; not tested"
    sure = found.p <= config.level and not found.interval[0] <= still <= found.interval[1]
    if sure and not small:
        return direction, f"p = {found.p:.2g}, {threshold} or more"
    if low <= found.interval[0] and found.interval[1] <= high:
        return "same", f"less than {threshold}"
    return "inconclusive", f"p = {found.p:.2g}, and the interval reaches beyond {threshold}"


def _notes(rows: Sequence[ComparedRow], config: CompareConfig) -> Iterator[str]:
    """Observations over all rows together."""
    changes = [change for row in rows if (change := row.of("latency"))]
    ratios = sorted(change.change for change in changes)
    for word, verdict in (("slower", "worse"), ("faster", "better")):
        alike = ratios[-1] / ratios[0] < (1 + config.latency) ** 2
        if len(changes) > 2 and alike and all(one.verdict == verdict for one in changes):
            yield (
                f"All {len(changes)} rows are {word} by nearly the same factor "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f}): it may be the machine, not the engines. "
                "Measure both again, one after the other."
            )


def _side(report: BenchReport, origin: str) -> Side:
    return Side(
        origin=origin,
        created=report.created,
        machine=summary(report.machine),
        noisy=report.noisy,
        why=report.why,
    )
