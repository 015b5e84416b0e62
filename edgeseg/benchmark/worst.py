"""The worst pictures of an engine, segmented once more to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.benchmark.accuracy import picture_name
from edgeseg.benchmark.budget import Recommendation, focus
from edgeseg.benchmark.cases import Case
from edgeseg.benchmark.document import BenchReport, EngineAccuracy
from edgeseg.data.folders import Split
from edgeseg.data.panels import Drawn, WorstPictures, draw_panels
from edgeseg.engines.base import Engine
from edgeseg.evaluation import read


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
        data: The labelled pictures.
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
