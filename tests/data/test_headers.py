"""Sizes and EXIF turns read off headers, against what Pillow wrote into them."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgeseg.data.decode import check_pixels, load_ids, load_image, upright
from edgeseg.data.headers import Header, pixel_limit, read_header
from edgeseg.errors import DatasetError, UsageError

RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(RNG.integers(0, 256, (5, 7, 3), np.uint8)).resize((37, 22), 3)
WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF")


def encoded(kind: str, picture: Image.Image = PICTURE, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x112] = orientation
    return block


@pytest.mark.parametrize("kind", [*WITH_EXIF, "BMP", "GIF", "PPM", "JPEG2000"])
def test_the_size_is_that_of_the_picture(kind: str) -> None:
    assert read_header(encoded(kind)) == Header(37, 22)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("JPEG", {"progressive": True}),
        ("TIFF", {"big_tiff": True}),
        ("JPEG2000", {"no_jp2": True}),
    ],
)
def test_the_size_in_variants_of_a_format(kind: str, options: dict[str, Any]) -> None:
    assert read_header(encoded(kind, **options)) == Header(37, 22)


@pytest.mark.parametrize("kind", WITH_EXIF)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(
    tmp_path: Path, kind: str, orientation: int
) -> None:
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(kind, exif=exif(orientation), **lossless)
    header = read_header(data)
    assert header is not None
    assert header.orientation == orientation
    path = tmp_path / "a"
    path.write_bytes(data)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    found = load_image(path)[..., ::-1]
    assert found.shape == shown.shape
    assert header.shown == shown.shape[:2]
    assert np.abs(found.astype(int) - shown).mean() < 2  # two decoders of JPEG


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_are_turned_by_their_own_exif(tmp_path: Path, orientation: int) -> None:
    ids = RNG.integers(0, 3, (8, 12), np.uint8)
    for mode in ("L", "P"):
        picture = Image.fromarray(ids).convert(mode)
        picture.save(tmp_path / "m.png", exif=exif(orientation))
        expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "m.png")))
        assert np.array_equal(load_ids(tmp_path / "m.png"), expected)
    assert np.array_equal(
        upright(upright(ids, orientation), {6: 8, 8: 6}.get(orientation, orientation)), ids
    )


def small_file(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that states any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(small_file(40_000, 30_000))
    for load in (load_image, load_ids):
        with pytest.raises(DatasetError, match="40000×30000 are 1200000000 pixels") as caught:
            load(path)
        assert "--max-pixels 1200000000" in str(caught.value.hint)


def test_the_limit_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    monkeypatch.setenv("EDGESEG_MAX_PIXELS", str(37 * 22))
    load_image(path)
    monkeypatch.setenv("EDGESEG_MAX_PIXELS", str(37 * 22 - 1))
    with pytest.raises(DatasetError, match="limit of 813"):
        load_image(path)
    monkeypatch.setenv("EDGESEG_MAX_PIXELS", "many")
    with pytest.raises(UsageError, match="whole number"):
        pixel_limit()


def test_the_first_bytes_of_a_frame_are_enough() -> None:
    data = encoded("JPEG", PICTURE.resize((300, 200)))
    check_pixels(data[:700], "camera:0", 300 * 200)
    with pytest.raises(DatasetError, match="camera:0: 300×200"):
        check_pixels(data[:700], "camera:0", 300 * 200 - 1)
    check_pixels(b"\xff\xd8\xff", "camera:0", 1)  # says nothing yet


@pytest.mark.parametrize("kind", [*WITH_EXIF, "BMP", "GIF", "PPM", "JPEG2000"])
def test_cut_and_altered_headers_raise_nothing(kind: str) -> None:
    data = encoded(kind, **({"exif": exif(6)} if kind in WITH_EXIF else {}))
    for length in range(min(len(data), 400)):
        read_header(data[:length])
        altered = bytearray(data)
        altered[length] ^= 0xFF
        read_header(bytes(altered))
