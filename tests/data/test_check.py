"""``edgeseg data check``: planted defects are found, all of them, and sound data has none."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.data.check import check, refuse_faults
from edgeseg.data.duplicates import SIMILAR, digest, fingerprint, most_similar
from edgeseg.data.findings import Findings
from edgeseg.data.folders import bundled_sample, load_image, load_sample, read_split
from edgeseg.data.sheet import draw_sheet
from edgeseg.errors import DatasetError, EdgesegError

BAD = Path(__file__).parents[1] / "bad" / "datasets"
RNG = np.random.default_rng(0)


def write(path: Path, array: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def picture(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """A smooth picture like no other: what noise is, no encoder keeps."""
    coarse = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def mask(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    ids = np.zeros((height, width), np.uint8)
    ids[: height // 2, : width // 2] = 1
    ids[-1] = 255
    return ids


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound data set: three pictures to train on, two to validate on, two classes."""
    for split, names in (("train", "abc"), ("val", "de")):
        for name in names:
            write(tmp_path / split / "images" / f"{name}.png", picture())
            write(tmp_path / split / "masks" / f"{name}.png", mask())
    (tmp_path / "classes.json").write_text('{"names": ["floor", "crack"]}')
    return tmp_path


def told(findings: Findings) -> list[str]:
    return [f"{finding.kind}: {finding.message}" for finding in findings.faults]


def test_sound_data_in_numbers(root: Path) -> None:
    findings = check(root)
    assert not findings.faults
    assert not findings.warnings
    train, val = findings.splits
    assert (train.name, train.pictures, val.name, val.pictures) == ("train", 3, "val", 2)
    assert train.sizes == (("60x40", 3),)
    assert train.objects is None
    floor, crack = train.classes
    # A quarter of the picture is crack, and the last row is ignored.
    assert (crack.name, crack.pixels, crack.pictures) == ("crack", 3 * 20 * 30, 3)
    assert crack.share == pytest.approx(600 / (39 * 60))
    assert floor.share + crack.share == pytest.approx(1)
    assert train.ignored_share == pytest.approx(1 / 40)


def test_the_bundled_nuclei_are_sound_and_counted() -> None:
    findings = check(bundled_sample())
    assert not findings.faults
    assert not findings.warnings
    assert [split.pictures for split in findings.splits] == [46, 14]
    samples = read_split(bundled_sample(), "val").samples
    ids = [cv2.imread(str(sample.instances), cv2.IMREAD_UNCHANGED) for sample in samples]
    assert findings.splits[1].objects == sum(len(np.unique(i)) - 1 for i in ids)
    nuclei = sum(int((i > 0).sum()) for i in ids) / sum(i.size for i in ids)
    assert findings.splits[1].classes[1].share == pytest.approx(nuclei)


DEFECTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda r: (r / "val/masks/d.png").unlink(), "pair: .*d.png: expected its mask"),
    (lambda r: (r / "val/images/d.png").unlink(), "pair: .*d.png: expected its picture"),
    (lambda r: write(r / "val/images/d.bmp", picture()), "pair: .*expected one file named d"),
    (lambda r: (r / "train/images/a.png").write_bytes(b"no"), "file: .*a.png: cannot be decoded"),
    (lambda r: (r / "train/masks/a.png").write_bytes(b""), "file: .*a.png is empty"),
    (lambda r: write(r / "train/masks/a.png", mask(20)), "size: .*a.png: .*60×40, found 60×20"),
    (
        lambda r: write(r / "train/masks/b.png", mask() * 7),
        r"value: .*b.png: expected ids 0…1 or 255 \(ignore\), found 7 \(600 pixels\)",
    ),
    (lambda r: shutil.copy(r / "train/images/a.png", r / "val/images/d.png"), "duplicate: .*d.png"),
    (lambda r: shutil.rmtree(r / "val"), "split: expected the split 'val', found train"),
    (lambda r: (r / "classes.json").write_text("[]"), "classes: .*classes.json"),
    (
        lambda r: [write(p, np.full((40, 60), 255)) for p in r.glob("val/masks/*")],
        "unlabelled: val: no pixel of any mask carries a label",
    ),
    (
        lambda r: [
            (r / "classes.json").unlink(),
            *(write(p, np.full((40, 60), 255)) for p in r.glob("*/masks/*")),
        ],
        "classes: .*found only 0 and perhaps 255",
    ),
    (
        lambda r: [
            p.rename(p.with_name(f"{p.stem}_mask.png")) for p in (r / "val/masks").iterdir()
        ],
        r"pair: .*val/masks: expected a file for each picture, such as .\.png, found .*_mask\.png",
    ),
]


@pytest.mark.parametrize(("plant", "expected"), DEFECTS, ids=[e[1].split(":")[0] for e in DEFECTS])
def test_a_planted_defect_is_found_and_nothing_else(
    root: Path, plant: Callable[[Path], object], expected: str
) -> None:
    plant(root)
    (fault,) = told(check(root))
    assert re.search(expected, fault), fault


def test_hints_name_what_is_there_and_the_form_of_the_file(root: Path) -> None:
    (root / "classes.json").write_text('["background", "disc"]')
    (root / "val/masks").rename(root / "val/labels")
    hints = {finding.message: finding.hint or "" for finding in check(root).faults}
    (folder,) = (message for message in hints if "masks or instances" in message)
    assert folder.endswith("found images, labels")
    (named,) = (hint for message, hint in hints.items() if "classes.json" in message)
    assert '{"names": ["background", "scratch"]}' in named


@pytest.mark.parametrize(("plant", "expected"), DEFECTS, ids=[e[1].split(":")[0] for e in DEFECTS])
def test_training_would_refuse_what_is_a_fault(
    root: Path, plant: Callable[[Path], object], expected: str
) -> None:
    plant(root)
    if expected.startswith("duplicate"):
        return  # not refused, but measured wrongly

    def as_training_reads() -> None:
        for name in ("train", "val"):
            split = read_split(root, name)
            masks = [load_sample(sample, split.classes)[1] for sample in split]
            if all((ids == split.classes.ignore).all() for ids in masks):
                raise DatasetError("what the evaluation says of such a split")

    with pytest.raises(EdgesegError):
        as_training_reads()


def test_several_defects_are_found_at_once(root: Path) -> None:
    for plant, _ in DEFECTS[1], DEFECTS[3], DEFECTS[6]:
        plant(root)
    kinds = [finding.kind for finding in check(root).faults]
    assert sorted(kinds) == ["file", "pair", "value"]


@pytest.mark.parametrize("name", sorted(path.name for path in BAD.iterdir()))
def test_every_committed_defective_data_set_has_a_fault(name: str) -> None:
    kinds = {finding.kind for finding in check(BAD / name).faults}
    # Of each the one picture is in both splits.
    assert kinds - {"duplicate"} or name == "mask-value-17-of-2-classes"


def test_instances_are_read_beside_masks(root: Path) -> None:
    for path in root.glob("*/masks/*.png"):
        ids = np.zeros((40, 60), np.uint16)
        ids[:10, :10], ids[20:30, :10] = 300, 301
        write(path.parents[1] / "instances" / path.name, ids)
    assert check(root).splits[0].objects == 6
    write(root / "val/instances/d.png", np.zeros((40, 61), np.uint16))
    (fault,) = told(check(root))
    assert "val/instances/d.png: expected the size of its picture 60×40, found 61×40" in fault


def test_boundaries_of_objects_are_counted_where_they_are_a_class(root: Path) -> None:
    ids = np.zeros((40, 60), np.uint16)
    ids[10:20, 10:20] = 1
    for path in root.glob("*/masks/*.png"):
        write(path.parents[1] / "instances" / path.name, ids)
    for masks in root.glob("*/masks"):
        shutil.rmtree(masks)
    (root / "classes.json").write_text('{"names": ["floor", "nut", "boundary"]}')
    findings = check(root)
    assert not findings.faults
    assert not findings.warnings
    assert [count.pixels for count in findings.splits[1].classes] == [4600, 2 * 64, 2 * 36]


def test_a_training_hears_of_warnings(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    refuse_faults(root)
    assert not caplog.records
    (root / "classes.json").write_text('{"names": ["floor", "crack", "rust"]}')
    refuse_faults(root)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "2 warnings: train: no pixel of rust; val: no pixel of rust; `edgeseg" in record.message


def test_a_name_that_no_pixel_has_is_a_warning(root: Path) -> None:
    (root / "classes.json").write_text('{"names": ["floor", "crack", "rust"]}')
    findings = check(root)
    assert not findings.faults
    assert [w.message for w in findings.warnings] == [
        "train: no pixel of rust",
        "val: no pixel of rust",
    ]


def test_pictures_that_are_not_divided(root: Path) -> None:
    findings = check(root / "train")
    assert not findings.faults
    assert [split.name for split in findings.splits] == [""]
    assert "not divided" in findings.warnings[0].message


def test_the_same_pixels_in_another_file_are_the_same_picture(root: Path) -> None:
    copy = load_image(root / "train/images/a.png")
    (root / "val/images/d.png").unlink()
    write(root / "val/images/d.bmp", copy)
    (fault,) = told(check(root))
    assert "a.png: the same picture across splits as" in fault
    assert "d.bmp" in fault


def test_twice_in_one_split_is_a_warning(root: Path) -> None:
    shutil.copy(root / "train/images/a.png", root / "train/images/b.png")
    findings = check(root)
    assert not findings.faults
    assert [w.kind for w in findings.warnings] == ["duplicate"]


def saved_as_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, [1, 60])[1], 1), np.uint8)


def brighter(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip((image / 255) ** 0.8 * 270, 0, 255).astype(np.uint8)


def smaller(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = image.shape[1] // 2, image.shape[0] // 2
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


@pytest.mark.parametrize("change", [saved_as_jpeg, brighter, smaller])
def test_nearly_the_same_picture_across_splits_is_a_warning(
    root: Path, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> None:
    changed = change(load_image(root / "train/images/a.png"))
    write(root / "val/images/d.png", changed)
    write(root / "val/masks/d.png", mask(*changed.shape[:2]))
    findings = check(root)
    assert not findings.faults
    (warning,) = findings.warnings
    assert warning.kind == "similar"
    assert "d.png: nearly the picture" in warning.message
    assert "a.png (correlation 0.9" in warning.message or "1.000" in warning.message


def test_fingerprints_tell_real_pictures_apart() -> None:
    """Every nucleus picture is most like itself, and like no other of the other split."""
    splits = [read_split(bundled_sample(), name) for name in ("train", "val")]
    train, val = ([load_image(sample.image) for sample in split] for split in splits)
    known = [fingerprint(image) for image in train]
    kept = np.array([own for own in known if own is not None])
    assert len(kept) == len(train)
    assert all(most_similar(fingerprint(image), kept) is None for image in val)
    for number, image in enumerate(train):
        found = most_similar(fingerprint(saved_as_jpeg(image)), kept)
        assert found is not None
        assert found[0] == number
        assert SIMILAR <= found[1] <= 1 + 1e-5


def test_flat_pictures_are_like_nothing() -> None:
    flat = np.full((50, 50, 3), 90, np.uint8)
    assert fingerprint(flat) is None
    assert most_similar(None, np.ones((1, 1024), np.float32)) is None
    assert most_similar(np.ones(1024, np.float32), np.empty((0, 1024), np.float32)) is None
    assert digest(flat) != digest(flat[:25, :].reshape(50, 25, 3)), "other sizes, other pictures"


@pytest.mark.parametrize(("correlation", "alike"), [(0.95, False), (0.978, True)])
def test_slices_of_an_embryo_are_similar_and_frames_of_a_street_are_not(
    correlation: float, alike: bool
) -> None:
    """The correlations are those measured on such pictures."""
    own, other = np.zeros((2, 1024), np.float32)
    own[0], other[:2] = 1, (correlation, (1 - correlation**2) ** 0.5)
    assert (most_similar(own, other[np.newaxis]) is not None) == alike


def test_voc_trainval_is_no_leak(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / "JPEGImages" / f"{name}.jpg", picture())
        write(tmp_path / "SegmentationClass" / f"{name}.png", mask())
    lists = {"train": "a", "val": "b", "trainval": "a\nb"}
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    for split, names in lists.items():
        (tmp_path / f"ImageSets/Segmentation/{split}.txt").write_text(names)
    findings = check(tmp_path)
    assert findings.layout == "PASCAL VOC"
    assert not findings.faults
    assert [split.name for split in findings.splits] == ["train", "val"]


def test_the_sheet_shows_labels_over_pictures_and_what_is_wrong(root: Path) -> None:
    (root / "val/masks/d.png").write_bytes(b"")
    findings = check(root)
    assert findings.classes is not None
    sheet = draw_sheet(findings.samples, findings.classes)
    crack = findings.classes.palette[1][::-1]
    green = (sheet == np.array(crack, np.uint8)).all(axis=2)
    # The outline of each mask, apart from the legend's swatch.
    assert green[60:].sum() > 4 * 20
    red = (sheet == np.array((60, 60, 220), np.uint8)).all(axis=2)
    assert red.any()
    sound = {"train": findings.samples["train"]}
    assert not (draw_sheet(sound, findings.classes) == np.array((60, 60, 220))).all(axis=2).any()


def test_the_command(root: Path, edgeseg: Any, tmp_path: Path) -> None:
    sheet = tmp_path / "out" / "sheet.png"
    outcome = edgeseg("data", "check", root, "--sheet", sheet, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert document["sheet"] == str(sheet)
    assert cv2.imread(str(sheet)).shape[1] > 1000
    assert document["splits"][0]["classes"][1]["name"] == "crack"
    assert document["splits"][1]["sizes"] == [{"size": "60x40", "pictures": 2}]
    (root / "val/masks/d.png").write_bytes(b"")
    outcome = edgeseg("data", "check", root, "--json")
    assert outcome.code == 3
    assert [fault["kind"] for fault in outcome.document["faults"]] == ["file"]
    outcome = edgeseg("data", "check", root)
    assert outcome.code == 3
    assert "faults: 1" in outcome.out
    with pytest.raises(json.JSONDecodeError):
        json.loads(outcome.out)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nowhere",), 2, "no such folder"),
        ((".",), 3, "expected folders of pictures, found none"),
        ((".", "--sheet", "sheet.jpg"), 2, "drawn as .png"),
    ],
)
def test_the_command_refuses(
    arguments: tuple[str, ...],
    code: int,
    says: str,
    edgeseg: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = edgeseg("data", "check", *arguments, "--json")
    assert outcome.code == code
    assert says in outcome.document["error"]["message"]
    assert not list(tmp_path.iterdir())
