"""Conventions of labels that files tell: EXIF turns, 255 as an object, palettes, Unicode names."""

import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgeseg.data.check import check, refuse_faults
from edgeseg.data.findings import Findings, render
from edgeseg.data.folders import read_split
from edgeseg.errors import DatasetError

Ids = NDArray[np.uint8]
NAMES = [f"{split}/{name}" for split, names in (("train", "abc"), ("val", "de")) for name in names]


def scene(seed: int, size: tuple[int, int] = (64, 96)) -> tuple[Image.Image, Ids]:
    """Noise with a bright box (1) that is nowhere near the middle, and its mask."""
    draw = np.random.default_rng(seed)
    picture = draw.integers(60, 120, (*size, 3), np.uint8)
    ids = np.zeros(size, np.uint8)
    top, left = (int(draw.integers(2, side // 8)) for side in size)
    ids[top : top + size[0] // 4, left : left + size[1] // 5] = 1
    picture[ids == 1] = draw.integers(190, 250, 3)
    return Image.fromarray(picture), ids


def lay_out(
    root: Path,
    masks: Callable[[int, Ids], Ids] = lambda _, ids: ids,
    names: tuple[str, ...] = ("floor", "crack"),
) -> Path:
    for number, name in enumerate(NAMES):
        split, stem = name.split("/")
        for part in ("images", "masks"):
            (root / split / part).mkdir(parents=True, exist_ok=True)
        picture, ids = scene(number)
        picture.save(root / split / "images" / f"{stem}.png")
        Image.fromarray(masks(number, ids)).save(root / split / "masks" / f"{stem}.png")
    text = ", ".join(f'"{name}"' for name in names)
    (root / "classes.json").write_text(f'{{"names": [{text}]}}')
    return root


def kinds(findings: Findings) -> list[str]:
    return [finding.kind for finding in findings.faults]


def turn(root: Path, orientation: int, follow: bool, size: tuple[int, int] = (64, 96)) -> None:
    """Give each picture an EXIF turn; masks are drawn on the stored or on the shown picture."""
    exif = Image.Exif()
    exif[0x112] = orientation
    for number, name in enumerate(NAMES):
        split, stem = name.split("/")
        picture, ids = scene(number, size)
        (root / split / "images" / f"{stem}.png").unlink()
        picture.save(root / split / "images" / f"{stem}.jpg", exif=exif, quality=95)
        mask = Image.fromarray(ids)
        if follow:
            mask.getexif()[0x112] = orientation
            mask = ImageOps.exif_transpose(mask)
        mask.save(root / split / "masks" / f"{stem}.png")


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("size", [(64, 96), (80, 80)], ids=["oblong", "square"])
def test_masks_that_do_not_follow_an_exif_turn(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    turn(lay_out(tmp_path), orientation, follow=False, size=size)
    findings = check(tmp_path)
    assert kinds(findings) == ["turn"] * len(NAMES)
    assert all("do not follow" in finding.message for finding in findings.faults)
    assert "exiftool -Orientation=1" in str(findings.faults[0].hint)
    assert "exiftool" in render(findings)
    with pytest.raises(DatasetError, match=r"do not follow.*and \d more") as caught:
        refuse_faults(tmp_path)
    assert "edgeseg data check" in str(caught.value.hint)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_that_follow_are_sound(tmp_path: Path, orientation: int) -> None:
    turn(lay_out(tmp_path), orientation, follow=True)
    findings = check(tmp_path)
    assert not findings.faults
    assert not findings.warnings
    refuse_faults(tmp_path)


def test_a_turn_that_nothing_can_judge_is_a_warning(tmp_path: Path) -> None:
    lay_out(tmp_path, lambda _, ids: np.ones_like(ids))
    turn(tmp_path, 3, follow=False)
    for path in tmp_path.glob("*/masks/*"):
        Image.fromarray(np.ones((64, 96), np.uint8)).save(path)
    findings = check(tmp_path)
    assert "turn" not in kinds(findings)
    assert [w.kind for w in findings.warnings].count("turn") == len(NAMES)
    assert "nothing tells" in findings.warnings[0].message


def test_255_as_the_object_of_two_named_classes(tmp_path: Path) -> None:
    lay_out(tmp_path, lambda _, ids: ids * 255)
    (named,) = check(tmp_path).faults
    (tmp_path / "classes.json").unlink()
    (unnamed,) = check(tmp_path).faults
    assert named == unnamed
    assert "write 1 for 255" in str(named.hint)


def test_255_as_the_object_in_some_masks(tmp_path: Path) -> None:
    lay_out(tmp_path, lambda number, ids: ids * (255 if number % 2 else 1))
    findings = check(tmp_path)
    assert kinds(findings) == ["value"] * 2
    assert "b.png: holds 0 and 255" in findings.faults[0].message
    assert "write 1 for 255" in str(findings.faults[0].hint)


def test_255_that_is_ignored_beside_objects_is_sound(tmp_path: Path) -> None:
    def with_rim(number: int, ids: Ids) -> Ids:
        ids = ids if number else np.zeros_like(ids)
        ids[-1] = 255
        return ids

    assert not check(lay_out(tmp_path, with_rim)).faults


def palettes(root: Path, colours: Mapping[int, list[int]], indices: Callable[[int], Ids]) -> None:
    for number, name in enumerate(NAMES):
        mask = Image.fromarray(indices(number)).convert("P")
        mask.putpalette(colours.get(number, colours[0]))
        split, stem = name.split("/")
        mask.save(root / split / "masks" / f"{stem}.png")


BLACK, RED, BLUE = [0, 0, 0], [200, 30, 30], [30, 60, 220]


def indices(number: int) -> Ids:
    ids = scene(number)[1]
    ids[-4:, -8:] = 2
    return ids


def test_one_palette_is_sound(tmp_path: Path) -> None:
    lay_out(tmp_path, names=("floor", "crack", "rust"))
    palettes(tmp_path, {0: BLACK + RED + BLUE}, indices)
    assert not check(tmp_path).faults


@pytest.mark.parametrize("other", [BLACK + BLUE + RED, BLACK + BLUE + BLACK, RED + BLUE + BLACK])
def test_palettes_that_differ(tmp_path: Path, other: list[int]) -> None:
    lay_out(tmp_path, names=("floor", "crack", "rust"))
    palettes(tmp_path, {0: BLACK + RED + BLUE, 1: other}, indices)
    (fault,) = check(tmp_path).faults
    assert fault.kind == "palette"
    assert "train/masks/b.png: its palette gives the id" in fault.message
    with pytest.raises(DatasetError, match="palette"):
        refuse_faults(tmp_path)


def test_a_palette_that_contradicts_the_declared_colours(tmp_path: Path) -> None:
    lay_out(tmp_path, names=("floor", "crack", "rust"))
    palettes(tmp_path, {0: BLACK + BLUE + RED}, indices)
    assert not check(tmp_path).faults  # all agree, and no colours are declared
    (tmp_path / "classes.json").write_text(
        f'{{"names": ["floor", "crack", "rust"], "palette": [{BLACK}, {RED}, {BLUE}]}}'
    )
    findings = check(tmp_path)
    assert kinds(findings) == ["palette"] * len(NAMES)
    assert "gives the id 1 the colour #1e3cdc, which is that of rust" in findings.faults[0].message


def test_colours_of_ids_that_do_not_occur_say_nothing(tmp_path: Path) -> None:
    lay_out(tmp_path, names=("floor", "crack", "rust"))
    palettes(tmp_path, {0: BLACK + RED + BLUE, 1: BLACK + RED + RED}, lambda n: scene(n)[1])
    assert not check(tmp_path).faults


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_that_look_the_same_are_pairs(tmp_path: Path, forms: tuple[Any, Any]) -> None:
    lay_out(tmp_path)
    for part, form in zip(("images", "masks"), forms, strict=True):
        name = unicodedata.normalize(form, "straße_é")
        (tmp_path / "train" / part / "a.png").rename(tmp_path / "train" / part / f"{name}.png")
    assert not check(tmp_path).faults
    assert len(read_split(tmp_path, "train")) == 3


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    lay_out(tmp_path)
    text = (tmp_path / "classes.json").read_text()
    (tmp_path / "classes.json").write_text(text, "utf-8-sig")
    assert not check(tmp_path).faults
    assert read_split(tmp_path, "val").classes.names == ("floor", "crack")


def test_files_that_are_passed_over_are_named(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / "train/images/f.heic").write_bytes(b"x")
    findings = check(tmp_path)
    assert not findings.faults
    assert [(w.kind, Path(w.message.split(":")[0]).name) for w in findings.warnings] == [
        ("skipped", "f.heic")
    ]


def test_training_is_not_refused_for_sound_data_and_is_for_a_damaged_picture(
    tmp_path: Path,
) -> None:
    lay_out(tmp_path)
    refuse_faults(tmp_path)
    path = tmp_path / "train/images/a.png"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"a\.png: the PNG is truncated"):
        refuse_faults(tmp_path)
