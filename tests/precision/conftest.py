"""A network small enough to be checked by hand, with every operator that the real ones have."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from cards import model_card
from graphs import onnx_network
from onnx import ModelProto

from edgeseg.artifacts.card import ModelCard
from edgeseg.precision.calibration import collect
from edgeseg.precision.ranges import Ranges, measure_ranges

HEIGHT, WIDTH = 32, 48


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return model_card(("background", "red", "bright"), HEIGHT, WIDTH, name="tiny", arch="tiny")


@pytest.fixture
def model(card: ModelCard) -> ModelProto:
    """Encoder, bilinear decoder, skip, transposed convolution, head; seeded weights."""
    random = np.random.default_rng(3)

    def weight(*shape: int) -> np.ndarray:
        spread = (2 / np.prod(shape[1:])) ** 0.5
        return random.normal(0, spread, shape).astype(np.float32)

    def bias(size: int) -> np.ndarray:
        return random.normal(0, 0.1, size).astype(np.float32)

    made = onnx_network(
        f"float[1,3,{HEIGHT},{WIDTH}] image",
        f"uint8[1,{HEIGHT},{WIDTH}] labels",
        """
        stem = Conv <pads=[1,1,1,1]> (image, w1, b1)
        stem_relu = Relu (stem)
        pool = MaxPool <kernel_shape=[2,2], strides=[2,2]> (stem_relu)
        deep = Conv <pads=[1,1,1,1]> (pool, w2, b2)
        deep_relu = Relu (deep)
        narrow = Conv (deep_relu, w3, b3)
        resize = Resize <mode="linear"> (narrow, , twice)
        up = ConvTranspose <strides=[2,2]> (deep_relu, w4)
        concat = Concat <axis=1> (stem_relu, resize, up)
        refine = Conv <pads=[1,1,1,1]> (concat, w5, b5)
        refine_relu = Relu (refine)
        head = Conv (refine_relu, w6, b6)
        argmax = ArgMax <axis=1, keepdims=0> (head)
        labels = Cast <to=2> (argmax)
        """,
        card=card,
        w1=weight(8, 3, 3, 3), b1=bias(8),
        w2=weight(16, 8, 3, 3), b2=bias(16),
        w3=weight(8, 16, 1, 1), b3=bias(8),
        w4=weight(16, 8, 2, 2),
        w5=weight(8, 24, 3, 3), b5=bias(8),
        w6=weight(3, 8, 1, 1), b6=bias(3),
        twice=np.array([1, 1, 2, 2], np.float32),
    )  # fmt: skip
    onnx.checker.check_model(made, full_check=True)
    return made


@pytest.fixture
def network(model: ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def pictures(nuclei: Path, tmp_path: Path) -> Path:
    """A folder with six of the bundled pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for source in sorted((nuclei / "train" / "images").iterdir())[:6]:
        shutil.copy(source, folder)
    return folder


@pytest.fixture
def manifest(pictures: Path) -> Path:
    path = pictures.parent / "calib" / "manifest.json"
    collect(pictures, path, count=4, seed=1)
    return path


@pytest.fixture
def ranges(network: Path, manifest: Path) -> Ranges:
    return measure_ranges(network, manifest)
