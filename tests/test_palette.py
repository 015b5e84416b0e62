"""The class colours as colour-blind people see them."""

from collections.abc import Sequence

import numpy as np
import pytest

from edgeseg.artifacts.card import Rgb, default_palette

# Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency" (2009), severity 1.0; they take linear RGB.
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
# IEC 61966-2-1: linear sRGB to XYZ, white D65.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(palette: Sequence[Rgb], eye: str) -> np.ndarray:
    """CIE L*a*b* of each colour, as the eye sees it."""
    value = np.array(palette) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = np.clip(linear @ EYES[eye].T, 0, 1) @ XYZ.T / XYZ.sum(axis=1)
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def least_distance(palette: Sequence[Rgb], eye: str) -> float:
    """CIE76 between the two colours that the eye tells worst."""
    seen = lab(palette, eye)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    return float(apart[np.triu_indices(len(palette), 1)].min())


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize(("count", "least"), [(8, 16), (19, 16), (32, 12)])
def test_any_eye_tells_the_colours_apart(count: int, least: float, eye: str) -> None:
    assert least_distance(default_palette(count, 0), eye) >= least
    assert least_distance(default_palette(count - 1, None), eye) >= least


@pytest.mark.parametrize("count", [2, 12, 40, 255])
def test_the_background_alone_is_black_wherever_it_stands(count: int) -> None:
    colours = default_palette(count, None)
    assert (0, 0, 0) not in colours
    for background in {0, 1, count // 2, count - 1}:
        black = default_palette(count, background)
        assert [id for id, colour in enumerate(black) if colour == (0, 0, 0)] == [background]
        assert (*black[:background], *black[background + 1 :]) == colours[:-1]


def test_distances_are_those_of_the_definition() -> None:
    white, black = lab([(255, 255, 255), (0, 0, 0)], "normal")
    np.testing.assert_allclose(white, (100, 0, 0), atol=0.02)
    np.testing.assert_allclose(black, 0, atol=1e-9)
    # The sRGB red of published tables.
    np.testing.assert_allclose(lab([(255, 0, 0)], "normal")[0], (53.24, 80.09, 67.20), atol=0.05)


def test_a_red_and_a_green_fall_together_for_those_who_do_not_see_them() -> None:
    planted = [*default_palette(8, 0), (190, 40, 40), (110, 110, 40)]
    assert least_distance(planted, "normal") >= 16
    assert least_distance(planted, "deuteranopia") < 12
