"""Accuracy picture by picture: sums against the whole evaluation, intervals against brute force."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeseg.benchmark.accuracy import compare, score_pictures, summarise_data
from edgeseg.benchmark.document import EngineAccuracy, PictureScore
from edgeseg.data.folders import Split, read_split
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.evaluation import evaluate
from edgeseg.metrics import Bootstrap

PLAN = Bootstrap(resamples=200, confidence=0.9, seed=1)


@pytest.fixture(scope="module")
def split(nuclei: Path) -> Split:
    whole = read_split(nuclei, "val")
    return replace(whole, samples=whole.samples[:4])


@pytest.mark.parametrize("batch", [1, 2])
def test_pictures_add_up_to_the_evaluation(
    tmp_path: Path, write_network: Callable[..., Path], split: Split, batch: int
) -> None:
    path = write_network(tmp_path / "model.onnx", batch, threshold=-1.0)
    with OnnxRuntimeEngine(path, 1) as engine:
        found = score_pictures(engine, split)
        if batch == 1:
            whole = evaluate(engine, split)
            own = compare(found, None, None, PLAN).mean_iou
            assert own == pytest.approx(whole.mean_iou, abs=1e-12)
            alone = evaluate(engine, replace(split, samples=split.samples[2:3]))
            assert found.pictures[2].iou == pytest.approx(alone.mean_iou, abs=1e-12)
    assert [picture.name for picture in found.pictures] == [
        sample.image.relative_to(split.root).as_posix() for sample in split
    ]
    assert found.classes == ("background", "nucleus")
    assert 0 < (found.pictures[0].iou or 0) < 1


def accuracy(name: str, seed: int, pictures: int = 9, classes: int = 3) -> EngineAccuracy:
    """Made-up counts; class 2 occurs in the first picture alone."""
    noise = np.random.default_rng(seed)
    scores = []
    for place in range(pictures):
        unions = noise.integers(50, 100, classes)
        unions[2] *= place == 0
        hits = noise.integers(0, unions + 1)
        scores.append(
            PictureScore(
                name=f"{place}.png",
                iou=float(noise.uniform()),
                hits=tuple(map(int, hits)),
                unions=tuple(map(int, unions)),
            )
        )
    return EngineAccuracy(engine=name, classes=("a", "b", "c"), pictures=tuple(scores))


def mean_iou_of(entry: EngineAccuracy, drawn: list[int]) -> float:
    """Class by class, of the pictures drawn."""
    ious = []
    for label in range(3):
        hits = sum(entry.pictures[place].hits[label] for place in drawn)
        union = sum(entry.pictures[place].unions[label] for place in drawn)
        if union:
            ious.append(hits / union)
    return float(np.mean(ious))


def test_intervals_resample_the_same_pictures_for_both_engines() -> None:
    base, other = accuracy("base", 0), accuracy("other", 1)
    draws = [
        [place for place, times in enumerate(row) for _ in range(times)] for row in PLAN.draw(9)
    ]
    assert any(0 not in drawn for drawn in draws)  # class 2 is missing then
    ours = np.array([mean_iou_of(other, drawn) for drawn in draws])
    drops = np.array([mean_iou_of(base, drawn) for drawn in draws]) - ours
    found = compare(other, base, 0.5, PLAN)
    everything = list(range(9))
    assert found.mean_iou == pytest.approx(mean_iou_of(other, everything))
    assert found.drop == pytest.approx(
        mean_iou_of(base, everything) - mean_iou_of(other, everything)
    )
    assert found.mean_iou_interval == pytest.approx(PLAN.interval(ours, 9))
    assert found.drop_interval == pytest.approx(PLAN.interval(drops, 9))
    assert found.pixel_agreement == 0.5


def test_an_engine_loses_nothing_against_itself() -> None:
    same = compare(accuracy("a", 0), accuracy("a", 0), 1.0, PLAN)
    assert (same.drop, same.drop_interval) == (0, (0, 0))


def test_one_picture_has_no_interval() -> None:
    alone = accuracy("a", 0, pictures=1)
    found = compare(alone, alone, None, PLAN)
    assert found.mean_iou is not None
    assert found.mean_iou_interval is found.drop_interval is None


def test_worst_pictures_come_first() -> None:
    scored = accuracy("a", 0)
    unlabelled = PictureScore(name="u.png", iou=None, hits=(0, 0, 0), unions=(0, 0, 0))
    scored = scored.model_copy(update={"pictures": (unlabelled, *scored.pictures)})
    worst = scored.worst(3)
    assert len(worst) == 3
    assert [p.iou for p in worst] == sorted(p.iou or 0 for p in scored.pictures[1:])[:3]


def test_the_hash_follows_names_order_pictures_and_labels(small_data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "nuclei"
    shutil.copytree(small_data, copy)
    whole = read_split(copy, "val")
    found = summarise_data(whole)
    assert (found.name, found.split) == ("nuclei", "val")
    assert found == summarise_data(read_split(small_data, "val"))

    hashes = {found.sha256, summarise_data(replace(whole, samples=whole.samples[::-1])).sha256}
    first = whole.samples[0]
    assert first.instances is not None
    for path in (first.image, first.instances):
        before = path.read_bytes()
        path.write_bytes(before + b"!")
        hashes.add(summarise_data(whole).sha256)
        path.write_bytes(before)
    renamed = first.image.rename(first.image.with_stem("renamed"))
    samples = (replace(first, image=renamed), *whole.samples[1:])
    hashes.add(summarise_data(replace(whole, samples=samples)).sha256)
    assert len(hashes) == 5
