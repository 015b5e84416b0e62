"""Zones against Matplotlib's point-in-polygon test, and values in them against masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from scipy import ndimage
from streaming import still_result

from edgeseg.artifacts.card import InputSpec
from edgeseg.errors import CorruptArtifact
from edgeseg.stream.alerts import Zone, load_zone
from edgeseg.stream.alerts.rule import Measure

# No corner on a row or column of pixel centres, where either answer would do.
SHARE = st.integers(0, 1009).map(lambda value: value / 1009)
CORNERS = st.lists(st.tuples(SHARE, SHARE), min_size=3, max_size=7)


@given(
    polygons=st.lists(CORNERS, min_size=1, max_size=3), size=st.tuples(*[st.integers(1, 40)] * 2)
)
def test_a_pixel_is_inside_where_its_centre_is(
    polygons: list[list[tuple[float, float]]], size: tuple[int, int]
) -> None:
    height, width = size
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    points = centres.reshape(-1, 2) / (width, height)
    expected, sure = np.zeros(len(points), bool), np.ones(len(points), bool)
    for corners in polygons:
        outline = Outline([*corners, corners[0]], closed=True)
        expected |= outline.contains_points(points)
        sure &= _distance(points, corners) > 1e-9
    found = Zone.model_validate({"polygons": polygons}).mask(height, width).ravel()
    assert np.array_equal(found[sure], expected[sure])


def _distance(points: Any, corners: list[tuple[float, float]]) -> Any:
    """From each point to the nearest edge."""
    nearest = np.full(len(points), np.inf)
    for a, b in zip(np.array(corners), np.roll(np.array(corners), -1, axis=0), strict=True):
        along = b - a
        share = ((points - a) @ along) / max(float(along @ along), 1e-300)
        foot = a + np.clip(share, 0, 1)[:, None] * along
        nearest = np.minimum(nearest, np.hypot(*(points - foot).T))
    return nearest


def test_the_whole_picture_and_zones_side_by_side_leave_no_pixel_out() -> None:
    whole = Zone(polygons=(((0, 0), (1, 0), (1, 1), (0, 1)),))
    assert whole.mask(7, 11).all()
    left = Zone(polygons=(((0, 0), (0.5, 0), (0.3, 1), (0, 1)),))
    right = Zone(polygons=(((0.5, 0), (1, 0), (1, 1), (0.3, 1)),))
    assert np.array_equal(left.mask(50, 70), ~right.mask(50, 70))


def test_pixels_of_a_stated_size_are_shares() -> None:
    pixels = Zone(size=(200, 100), polygons=(((20, 10), (150, 10), (100, 90)),))
    shares = Zone(polygons=(((0.1, 0.1), (0.75, 0.1), (0.5, 0.9)),))
    assert np.array_equal(pixels.mask(33, 47), shares.mask(33, 47))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"polygons": [[[0, 0], [1, 0]]]}', "at least 3"),
        ('{"polygons": []}', "at least 1"),
        ('{"polygons": [[[0, 0], [100, 0], [100, 50]]]}', "pixels need a size"),
        ('{"size": [64, 48], "polygons": [[[0, 0], [65, 0], [64, 48]]]}', "outside 0…64, 0…48"),
        ('{"polygons": [[[0, 0], [-0.1, 0], [1, 1]]]}', "outside 0…1"),
        ('{"polygons": [[[0, 0], [NaN, 0], [1, 1]]]}', "finite"),
        ('{"polygon": [[[0, 0], [1, 0], [1, 1]]]}', "polygon"),
        ('{"size": [0, 48], "polygons": [[[0, 0], [1, 0], [1, 1]]]}', "size"),
        ("[", "not valid JSON"),
    ],
)
def test_a_bad_zone_names_its_file_and_shows_a_good_one(
    tmp_path: Path, text: str, what: str
) -> None:
    path = tmp_path / "zone.json"
    path.write_text(text)
    with pytest.raises(CorruptArtifact) as refused:
        load_zone(path)
    assert refused.value.message.startswith(f"{path}: ")
    assert what in refused.value.message
    assert "polygons" in str(refused.value.hint)


def test_a_zone_is_read_back(tmp_path: Path) -> None:
    zone = Zone(size=(64, 48), polygons=(((0, 0), (64, 0), (64, 48)),))
    zone.save(tmp_path / "zone.json")
    assert load_zone(tmp_path / "zone.json") == zone


@given(
    seed=st.integers(0, 2**32 - 1),
    corners=CORNERS,
    size=st.tuples(*[st.integers(8, 60)] * 2),
    min_region=st.sampled_from([0, 0.01]),
    label=st.integers(0, 2),
)
def test_values_are_those_counted_on_the_mask(
    seed: int,
    corners: list[tuple[float, float]],
    size: tuple[int, int],
    min_region: float,
    label: int,
) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, (16, 24)).astype(np.uint8)
    spec = InputSpec(height=16, width=24, resize="letterbox")
    result = still_result(labels, frame=np.zeros((*size, 3), np.uint8), input=spec)
    zone = Zone.model_validate({"polygons": [corners]})
    everywhere = np.ones(size, bool)
    for where, inside in ((zone, zone.mask(*size)), (None, everywhere)):
        found = (result.mask() == label) & inside
        values = [
            Measure(label, unit, where, min_region).of(result) for unit in ("px", "%", "regions")
        ]
        if not inside.any():
            assert all(np.isnan(value) for value in values)
            continue
        parts = ndimage.label(found, np.ones((3, 3)))[0]
        areas = np.bincount(parts.ravel())[1:]
        count = int((areas >= min_region * result.mask().size).sum())
        assert values == [found.sum(), 100 * found.sum() / inside.sum(), count]
