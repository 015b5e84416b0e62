"""``edgeseg infer --tiles``: large pictures at their own scale."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from cards import model_card

from edgeseg.engines.base import Capabilities
from edgeseg.engines.tiles import default_margin, segment_tiled
from edgeseg.errors import UsageError
from edgeseg.models.unet import UNet
from edgeseg.ops.preprocess import preprocess, preprocess_tile
from edgeseg.training.predictor import TorchEngine


@pytest.fixture(scope="module")
def network() -> UNet:
    """Sees 8 pixels around each, and needs no more margin than that."""
    torch.manual_seed(0)
    return UNet(3, width=8, depth=1).eval()


def engine_for(network: UNet, height: int, width: int, *, tiles: bool = False) -> TorchEngine:
    card = model_card(
        "abc", height, width, arch="unet", options={"width": 8, "depth": 1}, tiles=tiles
    )
    return TorchEngine(network, card, Path("model.safetensors"))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(100, 131, 3), (20, 300, 3), (64, 65), (8, 9, 3)])
@pytest.mark.parametrize("batch", [None, 3])
def test_tiles_give_the_labels_of_the_whole_picture(
    network: UNet, shape: tuple[int, ...], batch: int | None
) -> None:
    image = noise(*shape)
    engine = engine_for(network, 48, 64)
    engine.capabilities = Capabilities(batch)
    tiled = segment_tiled(engine, image, margin=8)
    whole = engine_for(network, *shape[:2]).segment(image)
    assert tiled.dtype == np.uint8
    assert tiled.shape == shape[:2]
    assert len(np.unique(whole)) > 1
    # Scores that tie to the last bit may fall either way.
    assert np.mean(tiled != whole) < 1e-3


def test_without_a_margin_the_seams_are_seen(network: UNet) -> None:
    image = noise(100, 131, 3)
    naive = segment_tiled(engine_for(network, 48, 64), image, margin=0)
    assert np.mean(naive != engine_for(network, 100, 131).segment(image)) > 1e-2


@pytest.mark.parametrize(("size", "margin"), [((256, 512), 32), ((64, 48), 6), ((8, 8), 1)])
def test_default_margin_leaves_room(network: UNet, size: tuple[int, int], margin: int) -> None:
    engine = engine_for(network, *size)
    assert default_margin(engine.card.input) == margin
    assert segment_tiled(engine, noise(50, 40, 3)).shape == (50, 40)


def test_a_card_can_ask_for_tiles(network: UNet, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, resizing = (engine_for(network, 48, 64, tiles=tiles) for tiles in (True, False))
    for image in (noise(100, 131, 3), noise(40, 64)):
        assert np.array_equal(engine.segment(image), segment_tiled(resizing, image))
        assert not np.array_equal(engine.segment(image), resizing.segment(image))
    calls: list[np.ndarray] = []

    def infer(tensor: np.ndarray) -> np.ndarray:
        calls.append(tensor)
        return resizing.infer(tensor)

    monkeypatch.setattr(engine, "infer", infer)
    engine.segment(noise(48, 60, 3))
    assert len(calls) == 1  # what fits needs a single tile
    image = noise(100, 132, 3)  # comparisons take the tile in the middle
    expected = preprocess(image[26:74, 34:98].copy(), resizing.card.input)
    assert np.array_equal(preprocess_tile(image, engine.card.input), expected)


def test_a_margin_that_leaves_nothing(network: UNet) -> None:
    with pytest.raises(UsageError, match="keeps 0 pixels between its margins"):
        segment_tiled(engine_for(network, 48, 64), noise(9, 9, 3), margin=24)


def test_command_line(edgeseg: Any, trained: Path, small_data: Path, tmp_path: Path) -> None:
    pictures = sorted((small_data / "val/images").iterdir())[:2]
    documents = [
        edgeseg(
            "infer", trained / "model.onnx", *pictures, "--out", tmp_path / name, *options, "--json"
        ).document
        for name, options in (("whole", ()), ("tiles", ("--tiles",)))
    ]
    assert documents[0].keys() == documents[1].keys()
    for one, other in zip(*(document["pictures"] for document in documents), strict=True):
        labels = cv2.imread(other["labels"], -1)
        assert labels.shape == cv2.imread(other["picture"]).shape[:2]
        assert other["class_shares"]["nucleus"] == pytest.approx(np.mean(labels == 1), abs=1e-6)
        assert not np.array_equal(cv2.imread(one["labels"], -1), labels)


@pytest.fixture
def pictures(small_data: Path, tmp_path: Path) -> list[Path]:
    """Two pictures of the sample in a folder of their own, ``in``."""
    (tmp_path / "in").mkdir()
    found = sorted((small_data / "val/images").iterdir())[:2]
    return [Path(shutil.copy(path, tmp_path / "in")) for path in found]


@pytest.fixture
def infer(edgeseg: Any, trained: Path, tmp_path: Path) -> Callable[..., Any]:
    """``infer(*arguments)`` runs the command on ``in``, or other pictures, into ``out``."""
    command = ("infer", trained / "model.onnx", "--json")

    def run(*options: object, pictures: Sequence[Path] = (), out: str = "out") -> Any:
        return edgeseg(
            *command, *(pictures or [tmp_path / "in"]), "--out", tmp_path / out, *options
        )

    return run


def test_one_bad_picture_ends_no_batch(
    infer: Callable[..., Any], pictures: list[Path], tmp_path: Path
) -> None:
    """The bad one is named, what is no picture is named, and all else is done."""
    bad = tmp_path / "in" / "0.jpg"
    bad.write_bytes(cv2.imencode(".jpg", noise(40, 50, 3))[1].tobytes()[:-90])
    (tmp_path / "in" / "notes.odt").write_text("x")
    (tmp_path / "in" / "folder.png").mkdir()
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    outcome = infer()
    assert outcome.code == 3
    done = [entry["picture"] for entry in outcome.document["pictures"]]
    assert done == list(map(str, pictures))
    (failure,) = outcome.document["failed"]
    assert failure["picture"] == str(bad)
    assert "truncated" in failure["message"]
    skipped = {Path(entry["path"]).name: entry["reason"] for entry in outcome.document["skipped"]}
    assert skipped == {
        "folder.png": "a folder",
        "loop.png": "a link that leads nowhere",
        "notes.odt": "no picture by its suffix .odt",
    }


@pytest.mark.usefixtures("pictures")
def test_results_replace_nothing_unasked(infer: Callable[..., Any], tmp_path: Path) -> None:
    assert infer().code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    refused = infer()
    assert refused.code == 2
    assert "--overwrite" in refused.document["error"]["hint"]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert infer("--overwrite").code == 0
    assert all(path.stat().st_mtime_ns > then for path, then in before.items())


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_pictures_are_never_replaced(
    infer: Callable[..., Any], pictures: list[Path], options: tuple[str, ...]
) -> None:
    victim = pictures[1].rename(pictures[0].with_suffix(".labels.png"))
    before = victim.read_bytes()
    outcome = infer(*options, out="in")
    assert outcome.code == 2
    assert "one of the pictures" in outcome.document["error"]["message"]
    assert victim.read_bytes() == before


def test_two_pictures_of_one_stem_are_refused(
    infer: Callable[..., Any], pictures: list[Path], tmp_path: Path
) -> None:
    first = pictures[0]
    shutil.copy(first, first.with_suffix(".bmp"))
    outcome = infer()
    assert outcome.code == 2
    assert "written to the same file" in outcome.document["error"]["message"]
    assert not (tmp_path / "out").exists()
    twice = infer(pictures=[first, first])
    assert len(twice.document["pictures"]) == 1


@pytest.mark.usefixtures("pictures")
def test_the_limit_of_pixels_is_an_option(
    infer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEG_MAX_PIXELS", "1000")
    refused = infer()
    assert refused.code == 3
    assert "limit of 1000 (and 1 more)" in refused.document["error"]["message"]
    assert "--max-pixels" in refused.document["error"]["hint"]
    assert infer("--max-pixels", "1000000").code == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--margin", "8"), "--margin is of tiles"),
        (("--tiles", "--margin", "32"), "keeps 0"),
        (("--cluster", "somewhere"), "--cluster takes local, auto or ray://"),
        (("--workers", "2"), "--workers needs an archive"),
        (("--every", "2"), "--every needs an archive"),
    ],
)
def test_command_line_refuses(
    edgeseg: Any, trained: Path, small_data: Path, options: tuple[str, ...], reason: str
) -> None:
    outcome = edgeseg(
        "infer", trained / "model.onnx", small_data / "val/images", *options, "--json"
    )
    assert outcome.code == 2
    assert reason in outcome.document["error"]["message"]
