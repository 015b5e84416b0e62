"""Which pictures are left out, and which stand for the rest."""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data.folders import list_images, load_image
from edgeseg.data.selection import (
    SELECTS,
    Description,
    choose,
    describe,
    k_centre,
    sort_out,
    spread,
)

Scene = Callable[[int], np.ndarray]


def candidates(images: list[np.ndarray]) -> list[Description]:
    return [describe(str(number), image) for number, image in enumerate(images)]


@pytest.fixture
def scenes(scene: Scene) -> list[np.ndarray]:
    return [scene(seed) for seed in range(20)]


def test_different_sharp_pictures_all_stay(scenes: list[np.ndarray]) -> None:
    assert sort_out(candidates(scenes)) == {}


def noisy(level: int) -> np.ndarray:
    noise = np.random.default_rng(level).normal(0, 2, (90, 120, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros_like, "uniform"),
        (lambda image: noisy(4), "uniform"),
        (lambda image: noisy(128), "uniform"),
        (lambda image: np.full_like(image, 255), "uniform"),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 2), "blurred"),
        (lambda image: cv2.blur(image, (11, 1)), None),  # Half of its edges are as sharp as ever.
        (lambda image: cv2.blur(image, (9, 9)), "blurred"),
        (lambda image: image // 8, None),  # A night is no fault,
        (lambda image: image[::2, ::2], None),  # nor is another size.
    ],
)
def test_bad_pictures_are_left_out(
    scene: Scene,
    scenes: list[np.ndarray],
    bad: Callable[[np.ndarray], np.ndarray],
    reason: str | None,
) -> None:
    given = [*scenes, bad(scene(100))]
    assert sort_out(candidates(given)) == ({20: reason} if reason else {})


def test_a_soft_camera_is_not_blurred(scenes: list[np.ndarray]) -> None:
    """Sharpness is relative to the pool: where all are soft, none is out."""
    soft = [cv2.GaussianBlur(image, (0, 0), 3) for image in scenes]
    assert sort_out(candidates(soft)) == {}
    assert sort_out(candidates([*scenes, soft[0][:, ::-1].copy()])) == {20: "blurred"}


@pytest.mark.parametrize("again", ["jpeg", "shifted", "half size"])
def test_of_nearly_equal_pictures_the_first_stays(scenes: list[np.ndarray], again: str) -> None:
    original = scenes[3]
    copies = {
        "jpeg": cv2.imdecode(cv2.imencode(".jpg", original)[1], cv2.IMREAD_COLOR),
        "shifted": np.roll(original, 1, axis=1),
        "half size": cv2.resize(original, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    }
    given = [*scenes[:8], copies[again], *scenes[8:]]
    assert sort_out(candidates(given)) == {8: "similar"}


def test_another_light_is_another_picture(scenes: list[np.ndarray]) -> None:
    """A fixed camera sees the same by day and by night, and the ranges differ."""
    dusk = (scenes[3] * 0.5).astype(np.uint8)
    assert sort_out(candidates([*scenes, dusk])) == {}
    assert sort_out(candidates([*scenes, dusk, dusk])) == {21: "similar"}


def test_the_bundled_pictures_all_stay(nuclei: Path) -> None:
    """Half of them have 10 of 255 grey levels."""
    images = [load_image(path) for path in list_images(nuclei / "train" / "images")]
    assert sort_out(candidates(images)) == {}
    for start in range(0, len(images), 8):
        assert sort_out(candidates(images[start : start + 8])) == {}


def radius(points: np.ndarray, centres: list[int]) -> float:
    distances = np.linalg.norm(points[:, None] - points[centres][None], axis=2)
    return float(distances.min(axis=1).max())


@pytest.mark.parametrize("seed", range(6))
def test_k_centre_is_at_most_twice_the_best(seed: int) -> None:
    """The bound of Gonzalez (1985), against all ways to choose."""
    points = np.random.default_rng(seed).normal(size=(11, 3)).astype(np.float32)
    best = min(radius(points, list(some)) for some in itertools.combinations(range(11), 4))
    chosen = k_centre(points, 4, seed)
    assert len(set(chosen)) == 4
    assert best <= radius(points, chosen) <= 2 * best


def test_k_centre_takes_one_of_each_cluster_where_chance_does_not() -> None:
    random = np.random.default_rng(0)
    sizes = (400, 5, 5, 5, 5)
    places = np.repeat(np.arange(5), sizes)
    points = (random.normal(0, 0.1, (420, 2)) + 10 * places[:, None]).astype(np.float32)
    assert set(places[k_centre(points, 5, 1)]) == set(range(5))
    assert set(places[choose("random", points, 5, 1)]) != set(range(5))


def test_k_centre_takes_no_picture_twice() -> None:
    same = np.ones((6, 4), np.float32)
    assert sorted(k_centre(same, 6, 0)) == list(range(6))


def test_the_beginning_of_a_core_set_is_one() -> None:
    points = np.random.default_rng(3).normal(size=(60, 5)).astype(np.float32)
    assert k_centre(points, 20, 7)[:8] == k_centre(points, 8, 7)
    assert k_centre(points, 8, 7) != k_centre(points, 8, 8)


@pytest.mark.parametrize("select", SELECTS)
def test_every_choice_is_ascending_repeatable_and_whole(select: str) -> None:
    points = np.random.default_rng(3).normal(size=(50, 5)).astype(np.float32)
    chosen = choose(select, points, 12, 5)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 12
    assert chosen == choose(select, points, 12, 5)
    assert (choose(select, points, 12, 6) == chosen) == (select == "first")
    assert choose(select, points, 80, 5) == list(range(50))


@pytest.mark.parametrize(("total", "count"), [(100, 10), (17, 16), (1000, 64)])
def test_spread_draws_one_from_each_part(total: int, count: int) -> None:
    chosen = spread(total, count, seed=5)
    assert len(chosen) == count
    for part, index in enumerate(chosen):
        assert part * total // count <= index < -(-(part + 1) * total // count)
    assert chosen == spread(total, count, seed=5)
    assert spread(1000, 64, seed=1) != spread(1000, 64, seed=2)


def test_spread_takes_all_of_too_few() -> None:
    assert spread(3, 8, seed=0) == [0, 1, 2]
