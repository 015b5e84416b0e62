"""Accuracy of engines on labelled pictures, agreement of two engines, and flicker on videos."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.artifacts.files import sha256_file
from edgeseg.benchmark.budget import Recommendation, focus
from edgeseg.benchmark.cases import Case, label_one
from edgeseg.benchmark.document import (
    BenchReport,
    DataSummary,
    EngineAccuracy,
    PictureScore,
    SequenceSummary,
)
from edgeseg.benchmark.significance import Floats, counts_of
from edgeseg.console import Track, silent
from edgeseg.data.folders import Sample, Split
from edgeseg.data.panels import Drawn, WorstPictures, draw_panels
from edgeseg.engines.base import Engine
from edgeseg.errors import SourceError
from edgeseg.evaluation import Scores, numbered_for, read
from edgeseg.metrics import Bootstrap, ConfusionMatrix, Counts, Interval
from edgeseg.ops.preprocess import preprocess, preprocess_tile
from edgeseg.sources.capture import open_frames
from edgeseg.sources.frames import Frames, frames_of
from edgeseg.sources.spec import parse_source
from edgeseg.stream.smoothing import Flicker


@dataclass(frozen=True)
class Accuracy:
    """Accuracy figures as fractions of 1; None if there is nothing to compare with."""

    mean_iou: float | None = None
    mean_iou_interval: Interval | None = None
    drop: float | None = None
    drop_interval: Interval | None = None
    pixel_agreement: float | None = None
    flicker: float | None = None


def summarise_data(data: Split) -> DataSummary:
    """Name, split and a hash of the names and bytes of all pictures and labels, in order."""
    digest = hashlib.sha256()
    for sample in data:
        digest.update(picture_name(sample, data).encode())
        for path in (sample.image, sample.mask, sample.instances):
            digest.update(sha256_file(path).encode() if path else b"none")
    return DataSummary(name=data.root.resolve().name, split=data.name, sha256=digest.hexdigest())


def picture_name(sample: Sample, data: Split) -> str:
    """Path below the root of the data; the file's name where it lies elsewhere."""
    try:
        return sample.image.relative_to(data.root).as_posix()
    except ValueError:
        return sample.image.name


def score_pictures(engine: Engine, data: Split, track: Track = silent) -> EngineAccuracy:
    """Segment each picture and count the pixels of each class, at the mask's own size.

    Raises:
        DatasetError: As :func:`edgeseg.evaluation.evaluate`.
        InferenceError: The engine failed.
    """
    data = numbered_for(engine, data)
    scores, pictures = Scores(engine.card.classes), []
    title = f"Scoring {engine.path.name}"
    for sample in track(data, title, len(data)):
        image, mask = read(sample, engine)
        alone = scores.add(mask, engine.segment(image))
        pictures.append(_picture_score(picture_name(sample, data), alone))
    scores.evaluation()  # Refuses a split without a single labelled pixel.
    return EngineAccuracy(
        engine=str(engine.path),
        classes=scores.classes.names,
        pictures=tuple(pictures),
        confusion=tuple(tuple(map(int, row)) for row in scores.confusion.matrix),
    )


def _picture_score(name: str, confusion: ConfusionMatrix) -> PictureScore:
    iou = confusion.mean_iou
    return PictureScore(
        name=name,
        iou=None if math.isnan(iou) else iou,
        hits=tuple(map(int, confusion.hits)),
        unions=tuple(map(int, confusion.unions)),
    )


def compare(
    candidate: EngineAccuracy | None,
    reference: EngineAccuracy | None,
    alike: float | None,
    plan: Bootstrap,
) -> Accuracy:
    """Compute the figures of one engine, relative to the reference if there is one."""
    if candidate is None:
        return Accuracy(pixel_agreement=alike)
    counts = counts_of(candidate)
    own, resampled = float(counts.mean_iou()[0]), _resampled(counts, plan)
    drop = drop_interval = None
    if reference is not None:
        base = counts_of(reference)
        drop = float(base.mean_iou()[0]) - own
        before = _resampled(base, plan)
        if resampled is not None and before is not None:
            drop_interval = _interval(before - resampled, plan, len(counts))
    interval = None if resampled is None else _interval(resampled, plan, len(counts))
    return Accuracy(own, interval, drop, drop_interval, alike)


def _resampled(counts: Counts, plan: Bootstrap) -> Floats | None:
    """(resamples,): the same pictures are drawn for every engine of one data set."""
    if len(counts) < 2 or plan.resamples == 0:
        return None
    return counts.mean_iou(plan.draw(len(counts)))


def _interval(values: Floats, plan: Bootstrap, pictures: int) -> Interval | None:
    # A resample of unlabelled pictures alone has no mean IoU.
    defined = values[~np.isnan(values)]
    return plan.interval(defined, pictures) if defined.size else None


def agreements(
    reference: Engine,
    candidates: Sequence[Engine],
    images: Sequence[NDArray[np.uint8]],
    track: Track = silent,
) -> dict[Path, float]:
    """Share of pixels, at the network's size, that each labels as the reference does.

    Engines that take another input than the reference are left out.
    """
    spec = reference.card.input
    comparable = [engine for engine in candidates if engine.card.input == spec]
    equal = dict.fromkeys((engine.path for engine in comparable), 0)
    total = 0
    for image in track(images, "Comparing", len(images)):
        tensor = preprocess_tile(image, spec)
        expected = label_one(reference, tensor).copy()
        total += expected.size
        for engine in comparable:
            equal[engine.path] += int(np.count_nonzero(label_one(engine, tensor) == expected))
    return {path: count / total for path, count in equal.items()}


_LEAST = 3
"""Frames in which a label can change and change back."""


def measure_flicker(
    engines: Sequence[Engine], sequence: Path, most: int, track: Track = silent
) -> tuple[dict[Path, float | None], SequenceSummary]:
    """Segment the first ``most`` frames with each engine, at the network's size.

    Returns:
        Share of pixels that flickered by path, see :class:`~edgeseg.stream.smoothing.Flicker`; and
        what it was measured on.

    Raises:
        SourceError: The frames cannot be read, or are fewer than three.
    """
    found = {engine.path: Flicker() for engine in engines}
    frames, count = open_sequence(sequence), 0
    try:
        total = min(most, frames.declared or most)
        for frame in track(islice(frames_of(frames), most), "Measuring flicker", total):
            count += 1
            for engine in engines:
                labels = label_one(engine, preprocess(frame, engine.card.input))
                found[engine.path].add(labels, frame.shape)
    finally:
        frames.close()
    if count < _LEAST:
        raise SourceError(
            f"{sequence}: expected at least {_LEAST} frames in the order of time, found {count}",
            hint="give a video, or a folder with the pictures of one",
        )
    summary = SequenceSummary(name=sequence.resolve().name, frames=count)
    return {path: flicker.share for path, flicker in found.items()}, summary


def open_sequence(sequence: Path) -> Frames:
    """Open a video, or a folder or pattern of pictures.

    Raises:
        OpenFailed: It does not exist or cannot be read.
    """
    return open_frames(parse_source(sequence))


def worst_of_focus(
    report: BenchReport,
    advice: Recommendation | None,
    cases: Sequence[Case],
    data: Split | None,
    count: int,
) -> WorstPictures | None:
    """Of the engine that a report looks at closely; None without pictures or scores of them."""
    run = focus(report, advice)
    scores = report.accuracy_of(run) if run else None
    if scores is None or data is None or count == 0:
        return None
    engine = next(case.engine for case in cases if str(case.engine.path) == scores.engine)
    return worst_pictures(engine, scores, data, count)


def worst_pictures(
    engine: Engine, scores: EngineAccuracy, data: Split, count: int
) -> WorstPictures:
    """Draw the ``count`` pictures of lowest mean IoU, the lowest first.

    Args:
        engine: The open engine that ``scores`` belong to.
        scores: Its scores on ``data``.
        count: Largest number of pictures to draw.

    Raises:
        DatasetError: A picture or mask cannot be read any more.
        InferenceError: The engine failed.
    """
    samples = {picture_name(sample, data): sample for sample in data}
    drawn = list[Drawn]()
    for picture in scores.worst(count):
        image, mask = read(samples[picture.name], engine)
        labels = engine.segment(image)
        drawn.append(draw_panels(picture.name, image, mask, labels, engine.card.classes))
    return WorstPictures(scores.engine, engine.card.classes, tuple(drawn))
