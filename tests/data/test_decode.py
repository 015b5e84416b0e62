"""Files → arrays: ids come back as written, and damage is found."""

import io
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from edgeseg.data import decode
from edgeseg.data.decode import load_ids, load_image
from edgeseg.errors import DatasetError

RNG = np.random.default_rng(0)


def picture(height: int = 37, width: int = 53) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def palette_png(ids: NDArray[np.uint8], bits: int) -> bytes:
    """A palette PNG of VOC's kind, written by Pillow with misleading colours."""
    image = Image.fromarray(ids).convert("P")
    image.putpalette(list(RNG.integers(0, 256, 3 * 2**bits)))
    stream = io.BytesIO()
    image.save(stream, "PNG", bits=bits)
    return stream.getvalue()


def encoded(suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, picture())[1])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_pictures_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    path, expected = tmp_path / f"a{suffix}", picture()
    cv2.imwrite(str(path), expected)
    assert np.array_equal(load_image(path), expected)


def test_grey_becomes_three_channels_and_alpha_goes(tmp_path: Path) -> None:
    grey, alpha = picture()[..., 0], np.dstack([picture(), picture()[..., :1]])
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "alpha.png"), alpha)
    assert np.array_equal(load_image(tmp_path / "grey.png"), np.dstack([grey] * 3))
    assert np.array_equal(load_image(tmp_path / "alpha.png"), alpha[..., :3])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_indices_are_kept(tmp_path: Path, bits: int) -> None:
    ids = RNG.integers(0, 2**bits, (19, 23), dtype=np.uint8)
    path = tmp_path / "mask.png"
    path.write_bytes(palette_png(ids, bits))
    assert np.array_equal(load_ids(path), ids)
    # What a plain OpenCV read makes of it, else the detour would not be needed.
    assert not np.array_equal(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), ids)


def test_one_bit_grey_is_not_stretched(tmp_path: Path) -> None:
    ids = RNG.integers(0, 2, (19, 23), dtype=np.uint8)
    path = tmp_path / "mask.png"
    Image.fromarray(ids.astype(bool)).save(path)
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).max() == 255
    assert np.array_equal(load_ids(path), ids)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_ids_are_kept(tmp_path: Path, dtype: type[np.uint8] | type[np.uint16]) -> None:
    ids = RNG.integers(0, np.iinfo(dtype).max + 1, (9, 7), dtype=dtype)
    cv2.imwrite(str(tmp_path / "mask.png"), ids)
    found = load_ids(tmp_path / "mask.png")
    assert found.dtype == dtype
    assert np.array_equal(found, ids)


@pytest.mark.parametrize(
    "suffix", [".png", ".jpg", ".bmp", ".webp", ".tif", ".gif", ".jp2", ".ppm"]
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    data, path = encoded(suffix), tmp_path / f"cut{suffix}"
    path.write_bytes(data)
    load_image(path)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DatasetError, match=r"cut\."):
        load_image(path)


def test_a_jpeg_cut_after_its_thumbnail_is_refused(tmp_path: Path) -> None:
    """The end mark of a thumbnail in the EXIF segment is not the picture's."""
    data, thumbnail = encoded(".jpg"), encoded(".jpg")[:3000] + b"\xff\xd9"
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = data[:2] + segment + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(whole)
    load_image(path)
    path.write_bytes(whole[:-40])
    with pytest.raises(DatasetError, match="no end mark"):
        load_image(path)


def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path) -> None:
    ids = RNG.integers(0, 3, (64, 64), dtype=np.uint8)
    data = bytearray(cv2.imencode(".png", ids)[1].tobytes())
    path = tmp_path / "mask.png"
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="truncated or altered"):
        load_ids(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"not a picture", "cannot be decoded|damaged"), (None, "cannot be read")],
)
def test_what_is_no_picture(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=reason) as caught:
        load_image(path)
    assert ("ls -l" in str(caught.value.hint)) == (content is None)


@pytest.mark.parametrize(
    ("name", "hint"), [("a.jpg", "convert"), ("a.svg", "convert"), ("b.jpg", "copy")]
)
def test_a_picture_of_another_format_need_not_be_copied_again(
    tmp_path: Path, name: str, hint: str
) -> None:
    content = b"\0\0\0\x18ftypheic" if name == "a.jpg" else b"<svg/>"
    (tmp_path / name).write_bytes(content + bytes(40))
    with pytest.raises(DatasetError, match="cannot be decoded") as caught:
        load_image(tmp_path / name)
    assert str(caught.value.hint).startswith(hint)


def test_sixteen_bit_pictures_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), picture().astype(np.uint16) * 16)
    with pytest.raises(DatasetError, match="expected 8 bits a channel, found uint16"):
        load_image(tmp_path / "deep.png")


def test_masks_in_colour_or_lossy_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "colour.png"), picture())
    cv2.imwrite(str(tmp_path / "lossy.jpg"), picture())
    with pytest.raises(DatasetError, match="found RGB colour"):
        load_ids(tmp_path / "colour.png")
    with pytest.raises(DatasetError, match="not a PNG"):
        load_ids(tmp_path / "lossy.jpg")


def segments(data: bytes) -> list[int]:
    """Where the markers of a JPEG stand, up to its scan: as the standard says."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        found.append(at)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return [*found, at]


def test_fill_bytes_may_stand_before_any_marker(tmp_path: Path) -> None:
    """ITU-T T.81, B.1.1.2: any marker may optionally be preceded by any number of fill bytes."""
    data, path = encoded(".jpg"), tmp_path / "a.jpg"
    path.write_bytes(data)
    expected = load_image(path)
    filled = bytearray(data[:-2] + b"\xff\xff" + data[-2:])
    for at in reversed(segments(data)):
        filled[at:at] = b"\xff" * (1 + at % 3)
    path.write_bytes(bytes(filled))
    assert np.array_equal(load_image(path), expected)
    path.write_bytes(bytes(filled[:-60]))
    with pytest.raises(DatasetError, match="no end mark"):
        load_image(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".gif"])
def test_bytes_behind_the_end_belong_to_no_picture(tmp_path: Path, suffix: str) -> None:
    data, path = encoded(suffix), tmp_path / f"a{suffix}"
    path.write_bytes(data)
    expected = load_image(path)
    path.write_bytes(data + b"\xff\xd8 of a maker" + bytes(100))
    assert np.array_equal(load_image(path), expected)


@pytest.mark.parametrize("options", [{"restart_marker_blocks": 2}, {"progressive": True}])
def test_restart_markers_and_several_scans(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()).save(path, quality=95, **options)
    load_image(path)
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(DatasetError, match="no end mark"):
        load_image(path)


def test_chunks_that_decoders_pass_over_are_passed_over(tmp_path: Path) -> None:
    """PNG, 5.4: an ancillary chunk that is unknown, or whose checksum is wrong, is ignored."""
    data, path = encoded(".png"), tmp_path / "a.png"
    path.write_bytes(data)
    expected = load_image(path)
    odd = (3).to_bytes(4, "big") + b"maKe" + b"abc" + b"wrng"
    at = 8 + 25  # behind the signature and IHDR
    path.write_bytes(data[:at] + odd + data[at:])
    assert np.array_equal(load_image(path), expected)


@pytest.mark.parametrize("mode", ["CMYK", "LA", "RGBA", "1", "P"])
def test_every_kind_of_eight_bits_is_read(tmp_path: Path, mode: str) -> None:
    converted = Image.fromarray(picture()).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    converted.save(path, **({"quality": 95} if mode == "CMYK" else {}))
    expected = np.asarray(converted.convert("RGB"))[..., ::-1]
    assert np.abs(load_image(path).astype(int) - expected).mean() < 3


def test_transparency_changes_no_id(tmp_path: Path) -> None:
    ids = RNG.integers(0, 3, (9, 7), dtype=np.uint8)
    for mode in ("L", "P"):
        Image.fromarray(ids).convert(mode).save(tmp_path / "m.png", transparency=1)
        assert np.array_equal(load_ids(tmp_path / "m.png"), ids)


@pytest.mark.parametrize("big", [False, True])
def test_pages_behind_the_first_are_not_passed_over_silently(
    tmp_path: Path, big: bool, caplog: pytest.LogCaptureFixture
) -> None:
    page = Image.fromarray(np.full((9, 12, 3), 7, np.uint8))
    small = page.resize((4, 3))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # a smaller copy of the first page is no page
    for name, more in (("one", []), ("copy", [small]), ("stack", [page, page])):
        path = tmp_path / f"{name}.tif"
        page.save(path, save_all=True, append_images=more, big_tiff=big)
        for _ in range(2):
            assert (load_image(path) == 7).all()
    assert [record.args for record in caplog.records] == [(tmp_path / "stack.tif", 3)]


def test_a_stack_of_imagej_is_not_passed_over_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ImageJ's large stacks have one directory, and the other pictures behind the first."""
    page = Image.fromarray(np.full((9, 12), 7, np.uint8))
    described = "ImageJ=1.54f\nimages=4\nslices=4\nloop=false\n"
    for name, behind in (("stack", bytes(3 * 9 * 12)), ("cropped", b"")):
        path = tmp_path / f"{name}.tif"
        page.save(path, description=described)
        path.write_bytes(path.read_bytes() + behind)
        assert (load_image(path) == 7).all()
    assert [record.args for record in caplog.records] == [(tmp_path / "stack.tif", 4)]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_the_pictures_of_animations_are_not_passed_over_silently(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.fromarray(picture(9, 12)) for _ in range(3)]
    for name, more in (("one", []), ("animated", frames[1:])):
        path = tmp_path / f"{name}{suffix}"
        frames[0].save(path, save_all=bool(more), append_images=more, lossless=True, comment=b"a")
        load_image(path)
    assert [record.args for record in caplog.records] == [(tmp_path / f"animated{suffix}", 3)]


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 40}, {"progressive": True}])
def test_damage_within_a_jpeg_is_found(
    tmp_path: Path, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """A sector that reads as zeros, or is lost; OpenCV returns a picture all the same."""
    path = tmp_path / "a.jpg"
    smooth = cv2.resize(picture(60, 80), (640, 480), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).save(path, quality=90, **options)
    data = path.read_bytes()
    expected = np.asarray(Image.open(path))[..., ::-1]
    assert np.abs(load_image(path).astype(int) - expected).mean() < 1
    at = len(data) // 2
    for damaged in (data[:at] + bytes(4096) + data[at + 4096 :], data[:at] + data[at + 4096 :]):
        path.write_bytes(damaged)
        assert cv2.imread(str(path)).shape == (480, 640, 3)
        capfd.readouterr()
        with pytest.raises(DatasetError, match=r"a\.jpg: the JPEG is damaged"):
            load_image(path)
        assert capfd.readouterr().err == ""


def test_what_libjpeg_warns_of_without_damage(tmp_path: Path) -> None:
    """Bytes that fill up a scan, a version of JFIF that is to come, a scan of no coefficients."""
    data, path = encoded(".jpg"), tmp_path / "a.jpg"
    path.write_bytes(data)
    expected = load_image(path)
    version = data.index(b"JFIF\0") + 5
    last = data.index(b"\xff\xda") + 4 + 7 + 1  # section B.2.3: Se, behind three components and Ss
    assert data[last] == 63
    for odd in (
        data[:-2] + bytes(12) + data[-2:],
        data[:version] + b"\3" + data[version + 1 :],
        data[:last] + b"\0" + data[last + 1 :],
    ):
        path.write_bytes(odd)
        with pytest.raises(ValueError, match="extraneous bytes|JFIF|SOS"):
            simplejpeg.decode_jpeg(odd)
        assert np.array_equal(load_image(path), expected)
    path.write_bytes(data[:-2] + bytes(60) + data[-2:])
    with pytest.raises(DatasetError, match="damaged"):
        load_image(path)


def test_planes_of_unusual_sizes_are_read(tmp_path: Path) -> None:
    """Grey of two blocks, whose Y and Cb have twice the columns of Cr."""
    stream, path = io.BytesIO(), tmp_path / "a.jpg"
    Image.new("RGB", (16, 8), (128, 128, 128)).save(stream, "JPEG", subsampling=0)
    data = bytearray(stream.getvalue())
    frame = data.index(b"\xff\xc0")
    data[frame + 11] = data[frame + 14] = 0x21
    scan = data.index(b"\xff\xda") + 2 + 12
    # Codes of tables K.3 to K.6: no difference of DC, end of block; twice Y, twice Cb, Cr.
    path.write_bytes(bytes(data[:scan]) + b"\x28\xa0\x00\xff\xd9")
    with pytest.raises(ValueError, match="subsampling"):
        simplejpeg.decode_jpeg(path.read_bytes())
    assert (load_image(path) == 128).all()


def test_what_is_not_found_without_simplejpeg_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(".jpg"))
    expected = load_image(path)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    decode._warn_of_unchecked.cache_clear()
    for _ in range(2):
        assert np.abs(load_image(path).astype(int) - expected).mean() < 1
    (record,) = caplog.records
    assert "pip install simplejpeg" in record.getMessage()
