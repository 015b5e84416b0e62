"""The kernels of frame.cu, run by the processor, against edgeseg.ops: the same bits."""

import ctypes
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from standin import kernels

from edgeseg.artifacts.card import InputSpec
from edgeseg.engines.cuda import kernels as subject
from edgeseg.ops.argmax import argmax
from edgeseg.ops.overlay import Look, overlay_restored
from edgeseg.ops.preprocess import inside, nearest_indices, placement_of, preprocess

pytestmark = pytest.mark.skipif(
    kernels.COMPILER is None, reason="no C++ compiler here (apt install g++)"
)

BLOCK = (32, 8, 1)
PALETTE = ((0, 0, 0), (0, 158, 115), (230, 159, 0))
TYPES = {"preprocess": subject.Preprocess, "argmax": subject.Argmax, "overlay": subject.Overlay}

sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))
seeds = st.integers(0, 999)


def run(name: str, of: ctypes.Structure, width: int, height: int = 1, batch: int = 1) -> None:
    grid = (-(-width // BLOCK[0]), -(-height // BLOCK[1]), batch)
    kernels.launch(name, grid, BLOCK, bytes(of))


def noise(seed: int, shape: tuple[int, ...], top: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, top, shape, dtype=np.uint8)


def at(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


@pytest.mark.parametrize("name", TYPES)
def test_structures_have_the_size_that_the_kernel_takes(name: str) -> None:
    assert kernels.size_of(name) == ctypes.sizeof(TYPES[name])
    assert kernels.size_of("resize") == 0


def preprocessed(
    frames: NDArray[np.uint8], size: tuple[int, int], spec: InputSpec
) -> NDArray[np.float32]:
    """The tensor of ``frames`` (N, …) as the kernel makes it."""
    where = placement_of(size, spec)
    down, across = subject.taps(size[0], where.height), subject.taps(size[1], where.width)
    table = subject.value_table(spec)
    out = np.full((len(frames), *spec.shape), 77, np.float32)
    of = subject.Preprocess(
        subject.packed_frames(at(frames), size),
        *(at(each) for each in (down, across, table, out)),
        *spec.shape,
        *(where.top, where.left, where.height, where.width),
        spec.color == "rgb",
        spec.reduce == "area",
    )
    run("preprocess", of, spec.width, spec.height, len(frames))
    return out


@settings(deadline=None, max_examples=80)
@given(
    size=sizes,
    network=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    color=st.sampled_from(["rgb", "bgr", "gray"]),
    resize=st.sampled_from(["stretch", "letterbox"]),
    reduce=st.sampled_from(["bilinear", "area"]),
    batch=st.integers(1, 3),
    seed=seeds,
)
def test_preprocess_gives_the_bits_of_the_twin(
    size, network, color, resize, reduce, batch, seed
) -> None:
    values = {"mean": (0.4,), "std": (0.3,)} if color == "gray" else {}
    values |= {"color": color, "resize": resize, "reduce": reduce}
    spec = InputSpec(height=network[0], width=network[1], **values)
    frames = noise(seed, (batch, *size, 3))
    found = preprocessed(frames, size, spec)
    expected = np.stack([preprocess(frame, spec) for frame in frames])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("reduce", ["bilinear", "area"])
@pytest.mark.parametrize("size", [(1, 1), (720, 1280), (333, 2000), (2000, 33)])
def test_preprocess_of_large_frames(size: tuple[int, int], reduce: Any) -> None:
    spec = InputSpec(height=64, width=128, resize="letterbox", reduce=reduce)
    frames = noise(0, (1, *size, 3))
    np.testing.assert_array_equal(preprocessed(frames, size, spec)[0], preprocess(frames[0], spec))


@settings(deadline=None, max_examples=50)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 256), st.integers(1, 9), st.integers(1, 9)),
    few=st.booleans(),
    nans=st.booleans(),
    seed=seeds,
)
def test_argmax_is_that_of_the_twin(shape, few: bool, nans: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-2, 2, shape) if few else rng.integers(-128, 128, shape)
    logits = logits.astype(np.float32)
    logits[logits == 0] *= rng.choice([-1, 1], (logits == 0).sum())
    logits[logits == 127] = np.inf
    if nans:
        logits[rng.random(shape) < 0.05] = np.nan
    out = np.full((shape[0], *shape[2:]), 77, np.uint8)
    pixels = shape[2] * shape[3]
    of = subject.Argmax(at(logits), at(out), shape[1], pixels)
    run("argmax", of, pixels, batch=shape[0])
    np.testing.assert_array_equal(out, argmax(logits))
    np.testing.assert_array_equal(out, np.argmax(logits, axis=1))


def label_maps(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    coarse = noise(seed, (shape[0], shape[1] // 4 + 1, shape[2] // 4 + 1), 4)
    coarse[coarse == 3] = 255
    return np.ascontiguousarray(coarse.repeat(4, 1).repeat(4, 2)[:, : shape[1], : shape[2]])


def labels_of(
    maps: NDArray[np.uint8], size: tuple[int, int], spec: InputSpec, rows: int, columns: int
) -> subject.LabelMaps:
    where = placement_of(size, spec)
    start = at(maps) + where.top * spec.width + where.left
    return subject.LabelMaps(start, spec.width, spec.height * spec.width, rows, columns)


@settings(deadline=None, max_examples=80)
@given(
    size=sizes,
    network=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    resize=st.sampled_from(["stretch", "letterbox"]),
    alpha=st.floats(0, 1),
    outline=st.booleans(),
    clear=st.sampled_from([frozenset(), frozenset({0}), frozenset({1, 3})]),
    in_place=st.booleans(),
    seed=seeds,
)
def test_overlay_gives_the_bits_of_the_twin(
    size, network, resize, alpha, outline, clear, in_place, seed
) -> None:
    spec = InputSpec(height=network[0], width=network[1], resize=resize)
    frames = noise(seed, (2, *size, 3))
    maps = label_maps(seed, (2, *network))
    look = Look(PALETTE, alpha, outline, clear)
    expected = [overlay_restored(f, m, spec, look) for f, m in zip(frames, maps, strict=True)]
    part = inside(maps[0], size, spec).shape
    rows, columns = nearest_indices(part, size)
    table = subject.colours(look)
    out = frames if in_place else np.full((2, *size, 3), 77, np.uint8)
    of = subject.Overlay(
        subject.packed_frames(at(frames), size),
        labels_of(maps, size, spec, at(rows), at(columns)),
        at(table),
        at(out),
        look.weight,
        outline,
    )
    run("overlay", of, -(-size[1] // 4), size[0], 2)
    np.testing.assert_array_equal(out, np.stack(expected))


# What frame.cu may touch, and nothing besides: each array its own allocation under a sanitiser.


def case(
    name: str, of: ctypes.Structure, grid: tuple[int, int, int], **buffers: NDArray[Any]
) -> bytes:
    """One launch as the driver reads it; a buffer is named by the path to its address."""
    words = struct.Struct("=I")
    made = [words.pack(len(buffers))]
    made += [words.pack(b.nbytes) + b.tobytes() for b in buffers.values()]
    made += [words.pack(len(text)) + text for text in (name.encode(), bytes(of))]
    made += [words.pack(value) for value in (*grid, *BLOCK, len(buffers))]
    for number, path in enumerate(buffers):
        offset, kind = 0, type(of)
        for part in path.split("__"):
            offset += getattr(kind, part).offset
            kind = dict(kind._fields_)[part]
        made += [words.pack(offset), words.pack(number)]
    return b"".join(made)


def cases() -> bytes:
    """Every kernel over sizes on either side of a block, a word, a strip."""
    made = []
    for height, width in ((1, 1), (2, 4), (7, 33), (16, 64), (31, 130)):
        spec = InputSpec(height=24, width=40, resize="letterbox")
        size, where = (height, width), placement_of((height, width), spec)
        frame = noise(0, (*size, 3))
        of = subject.Preprocess(subject.packed_frames(0, size), 0, 0, 0, 0, *spec.shape)
        of.top, of.left, of.rows, of.columns = where.top, where.left, where.height, where.width
        tables = {
            "down": subject.taps(height, where.height),
            "across": subject.taps(width, where.width),
            "table": subject.value_table(spec),
            "out": np.zeros(spec.shape, np.float32),
        }
        made.append(case("preprocess", of, (2, 3, 1), frames__data=frame, **tables))
        maps = label_maps(0, (1, where.height, where.width))
        rows, columns = nearest_indices(maps.shape[1:], size)
        labels = subject.LabelMaps(0, where.width, 0, 0, 0)
        look = Look(PALETTE, 0.5, outline=True, clear={0})
        on = subject.Overlay(
            subject.packed_frames(0, size), labels, 0, 0, look.weight, look.outline
        )
        given = {"labels__rows": rows, "labels__columns": columns, "labels__data": maps}
        painted = {"colours": subject.colours(look), "out": np.zeros((*size, 3), np.uint8)}
        made.append(case("overlay", on, (2, 4, 1), frames__data=frame, **given, **painted))
        logits = noise(2, (5, height, width)).astype(np.float32)
        pixels = height * width
        of, out = subject.Argmax(0, 0, 5, pixels), np.zeros(pixels, np.uint8)
        made.append(case("argmax", of, (-(-pixels // 32), 1, 1), logits=logits, out=out))
    return struct.pack("=I", len(made)) + b"".join(made)


SANITISE = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def drive(folder: Path, *options: str, **source: Path) -> subprocess.CompletedProcess[bytes]:
    program = kernels.compile_shim(folder / "driver", "-DEDGESEG_DRIVER", *options, **source)
    return subprocess.run([program], input=cases(), capture_output=True, check=False, timeout=110)


def test_sanitisers_find_nothing(tmp_path: Path) -> None:
    plain = drive(tmp_path, "-O2")
    assert plain.returncode == 0
    assert len(plain.stdout.splitlines()) == 5 * 3
    done = drive(tmp_path, *SANITISE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == plain.stdout


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("down.first + (down.weight != 0)", "down.first + 1"),
        ("if (i >= of.pixels) return;", ""),
        ("v < 0 || v >= on.frames.height", "v < 0"),
    ],
)
def test_sanitisers_find_what_is_planted(tmp_path: Path, right: str, wrong: str) -> None:
    text = kernels.SOURCE.read_text()
    assert text.count(right) == 1
    planted = tmp_path / "frame.cu"
    planted.write_text(text.replace(right, wrong))
    done = drive(tmp_path, *SANITISE, source=planted)
    assert b"AddressSanitizer: heap-buffer-overflow" in done.stderr


# What nvcc says of it.

NVCC = shutil.which("nvcc")
MOST_REGISTERS = 64
"""So that a multiprocessor of 65,536 holds at least 1,024 threads of a kernel."""


def codes() -> set[str]:
    """``sm_NN`` of the oldest and the newest generation, where this nvcc knows them."""
    known = subprocess.run([NVCC, "--list-gpu-code"], capture_output=True, text=True, check=True)
    return {"sm_75", "sm_120"} & set(known.stdout.split())


def report(
    folder: Path, codes: set[str], *options: str, source: Path = kernels.SOURCE
) -> dict[str, tuple[int, int]]:
    """Registers and spilled bytes of each ``kernel sm_NN``."""
    targets = [f"-gencode=arch=compute_{code[3:]},code={code}" for code in codes]
    command = [NVCC, "-fatbin", "-t2", "-Xptxas=-v", "-Werror=all-warnings", *targets, *options]
    done = subprocess.run(
        [*command, str(source), "-o", str(folder / "fatbin")],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout + done.stderr
    entries = re.split(r"Compiling entry function '(\w+)' for '(sm_\w+)'", text)
    found = {}
    for name, code, said in zip(entries[1::3], entries[2::3], entries[3::3], strict=True):
        spilled = sum(map(int, re.findall(r"(\d+) bytes (?:spill|stack)", said)))
        found[f"{name} {code}"] = int(*re.findall(r"Used (\d+) registers", said)), spilled
    return found


@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
def test_no_gpu_spills(tmp_path: Path) -> None:
    found = report(tmp_path, codes())
    assert {name.split()[0] for name in found} == set(TYPES)
    assert len(found) == len(TYPES) * len(codes())
    assert {name: each for name, each in found.items() if each > (MOST_REGISTERS, 0)} == {}
    assert {spilled for _, spilled in found.values()} == {0}


@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
def test_a_spill_would_be_seen(tmp_path: Path) -> None:
    planted = tmp_path / "frame.cu"
    planted.write_text(kernels.SOURCE.read_text().replace("__launch_bounds__(256)", ""))
    found = report(tmp_path, {"sm_90"}, "-maxrregcount=24", source=planted)
    assert any(spilled for _, spilled in found.values())
