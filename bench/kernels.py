"""Compare the kernels around the network: naive code, the best of OpenCV, ours, and the floor.

    python bench/kernels.py --frame 1280x720 --threads 1
    python bench/kernels.py --all bench/results/kernels     # 720p and 1080p, 1 and 2 threads

One row per stage, for a 512 × 256 network with 21 classes. The four columns are measured in
blocks of calls, in turns and in random order; figures are medians. The floor is the cost of
moving the memory: reading each input and writing each output once, as copies of that many bytes.

``frame`` is the sum of the first three stages, of which a picture goes through each. The variants
after it are the same stages with other arrays: logits and tensors of halves and bytes, an overlay
drawn into the frame itself or with outlines, and the worst case of an overlay, labels of noise.

``--all`` measures each level of instructions that the CPU has in the same turns, writes a document
for each and one page, and takes about three minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import circumstances, command_line, turns, words, write_json
from numpy.typing import NDArray

from edgeseg.artifacts.card import InputSpec, default_palette
from edgeseg.artifacts.files import write_atomic
from edgeseg.ops.argmax import argmax
from edgeseg.ops.components import components_native, components_reference
from edgeseg.ops.native import kernels
from edgeseg.ops.overlay import Look, lay_native
from edgeseg.ops.preprocess import Form, preprocess, preprocess_as
from edgeseg.report.tables import Column, Table, render_markdown

SPEC = InputSpec(height=256, width=512)
CLASSES = 21
BLOCK_SECONDS = 0.15
FRAME = ("preprocess", "argmax", "overlay")
COLUMNS = ("naive_ms", "best_opencv_ms", "ours_ms", "floor_ms")
OURS = COLUMNS.index("ours_ms")
FRAMES = ((1280, 720), (1920, 1080))
Function = Callable[[], object]


@dataclass(frozen=True)
class Scene:
    """A frame, smooth logits as of a trained network, and what belongs to them."""

    frame: NDArray[np.uint8]
    logits: NDArray[np.float32]
    labels: NDArray[np.uint8]
    palette: NDArray[np.uint8]

    @classmethod
    def make(cls, width: int, height: int) -> Scene:
        """Noise as frame; classes in regions of about 32 pixels of the network."""
        rng = np.random.default_rng(0)
        coarse = rng.standard_normal((CLASSES, SPEC.height // 32, SPEC.width // 32), np.float32)
        logits = np.stack([cv2.resize(plane, (SPEC.width, SPEC.height)) for plane in coarse])
        return cls(
            frame=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            logits=logits,
            labels=logits.argmax(axis=0).astype(np.uint8),
            palette=np.array(default_palette(CLASSES, None), np.uint8),
        )


def stages(scene: Scene, threads: int) -> dict[str, tuple[Function, ...]]:
    """Stage → the functions of :data:`COLUMNS`."""
    tensor, painted = np.empty(SPEC.shape, np.float32), np.empty_like(scene.frame)
    labels = np.empty_like(scene.labels)
    look = Look([tuple(colour) for colour in scene.palette.tolist()])
    return {
        "preprocess": (
            lambda: naive_preprocess(scene),
            lambda: cv2.dnn.blobFromImage(
                cv2.resize(scene.frame, (SPEC.width, SPEC.height)), 1 / 58.4, mean=(124, 116, 104)
            ),
            lambda: preprocess(scene.frame, SPEC, tensor, threads=threads),
            floor(scene.frame.nbytes, tensor.nbytes),
        ),
        "argmax": (
            lambda: np.argmax(scene.logits, axis=0).astype(np.uint8),
            lambda: opencv_argmax(scene.logits),
            lambda: argmax(scene.logits, labels, threads=threads),
            floor(scene.logits.nbytes, labels.nbytes),
        ),
        "overlay": (
            lambda: naive_overlay(scene),
            lambda: opencv_overlay(scene),
            lambda: lay_native(scene.frame, scene.labels, look, painted, threads),
            floor(scene.frame.nbytes + labels.nbytes, painted.nbytes),
        ),
        "components": (
            lambda: components_reference(scene.labels, 0),
            lambda: opencv_components(scene.labels),
            lambda: components_native(scene.labels, 0),
            floor(labels.nbytes, 0),
        ),
    }


def variants(scene: Scene, threads: int) -> dict[str, Function]:
    """Stage and what is other about it → ours."""
    forms = [Form("float16"), Form("uint8"), Form("uint8", "hwc")]
    tensors = [np.empty(form.shape(SPEC), form.dtype) for form in forms]
    halves = scene.logits.astype(np.float16)
    octets = np.clip(scene.logits * 30, -128, 127).astype(np.int8)
    labels, painted, drawn = (np.empty_like(a) for a in (scene.labels, scene.frame, scene.frame))
    look = Look([tuple(colour) for colour in scene.palette.tolist()])
    outlined = Look(look.palette, outline=True)
    by_area, tensor = SPEC.model_copy(update={"reduce": "area"}), np.empty(SPEC.shape, np.float32)
    noise = np.random.default_rng(1).integers(0, CLASSES, labels.shape, dtype=np.uint8)

    def into(place: int) -> Function:
        return lambda: preprocess_as(
            forms[place], scene.frame, SPEC, tensors[place], threads=threads
        )

    return {
        "preprocess float16": into(0),
        "preprocess uint8": into(1),
        "preprocess uint8 hwc": into(2),
        "preprocess by area": lambda: preprocess(scene.frame, by_area, tensor, threads=threads),
        "argmax float16": lambda: argmax(halves, labels, threads=threads),
        "argmax int8": lambda: argmax(octets, labels, threads=threads),
        "overlay in place": lambda: lay_native(drawn, scene.labels, look, drawn, threads),
        "overlay outline": lambda: lay_native(
            scene.frame, scene.labels, outlined, painted, threads
        ),
        "overlay of noise": lambda: lay_native(scene.frame, noise, look, painted, threads),
    }


def naive_preprocess(scene: Scene) -> NDArray[np.float32]:
    """Resize, RGB, float, normalise, transpose, one line after another."""
    image = cv2.cvtColor(cv2.resize(scene.frame, (SPEC.width, SPEC.height)), cv2.COLOR_BGR2RGB)
    scaled = image.astype(np.float32) / 255
    scaled = (scaled - np.array(SPEC.mean, np.float32)) / np.array(SPEC.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def naive_overlay(scene: Scene) -> NDArray[np.uint8]:
    """Palette by indexing, upscaled, blended in float."""
    height, width = scene.frame.shape[:2]
    mask = cv2.resize(scene.labels, (width, height), interpolation=cv2.INTER_NEAREST)
    blended = scene.frame * 0.5 + scene.palette[mask][..., ::-1] * 0.5
    return np.asarray(blended, np.uint8)


def opencv_overlay(scene: Scene) -> NDArray[np.uint8]:
    """Colours at the network's size, upscaled, blended: no step leaves OpenCV."""
    height, width = scene.frame.shape[:2]
    table = np.zeros((256, 1, 3), np.uint8)
    table[:CLASSES, 0] = scene.palette[:, ::-1]
    colours = cv2.resize(
        cv2.applyColorMap(scene.labels, table), (width, height), interpolation=cv2.INTER_NEAREST
    )
    return np.asarray(cv2.addWeighted(scene.frame, 0.5, colours, 0.5, 0), np.uint8)


def opencv_argmax(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A running maximum; its class where it rose."""
    best = logits[0].copy()
    labels = np.zeros(best.shape, np.uint8)
    for index, plane in enumerate(logits[1:], start=1):
        cv2.copyTo(np.full_like(labels, index), cv2.compare(plane, best, cv2.CMP_GT), labels)
        cv2.max(plane, best, dst=best)
    return labels


def opencv_components(labels: NDArray[np.uint8]) -> list[object]:
    """Class by class, without bringing the classes into one order."""
    present = np.flatnonzero(np.bincount(labels.ravel()))
    return [
        cv2.connectedComponentsWithStats(
            cv2.compare(labels, float(label), cv2.CMP_EQ)  # type: ignore[call-overload]  # a scalar
        )
        for label in present[present > 0]
    ]


def floor(read: int, written: int) -> Function:
    """A copy moves each byte twice, so half of what is read and written is copied."""
    source = np.zeros((read + written) // 2, np.uint8)
    target = np.ones_like(source)
    return lambda: np.copyto(target, source)


def measure(functions: Sequence[Function], rounds: int) -> list[float]:
    """Median milliseconds of each function: a block of calls each in turns, in random order.

    The first call of a block pays for the caches that the others left and is not counted.
    """
    samples: list[list[float]] = [[] for _ in functions]
    for _, column in turns(range(len(functions)), rounds):
        functions[column]()
        end = time.perf_counter() + BLOCK_SECONDS
        while (began := time.perf_counter()) < end:
            functions[column]()
            samples[column].append((time.perf_counter() - began) * 1000)
    return [round(statistics.median(values), 3) for values in samples]


def at(level: str, function: Function) -> Function:
    """The function on the row kernels of a level; choosing them takes no time to speak of."""
    assert kernels is not None
    use = kernels.use

    def call() -> None:
        use(level)
        function()

    return call


def total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of what a frame goes through."""
    parts = [row for row in rows if row["stage"] in FRAME]
    sums = {column: round(sum(row[column] for row in parts), 3) for column in COLUMNS}
    return {"stage": "frame", **sums}


def documents(
    frame: tuple[int, int], threads: int, levels: Sequence[str], rounds: int
) -> list[dict[str, Any]]:
    """A document a level; what does not depend on it is measured once."""
    cv2.setNumThreads(threads)
    width, height = frame
    scene = Scene.make(width, height)
    rows: dict[str, list[dict[str, Any]]] = {level: [] for level in levels}
    for stage, functions in stages(scene, threads).items():
        others = [each for place, each in enumerate(functions) if place != OURS]
        ours = [at(level, functions[OURS]) for level in levels]
        medians = measure([*others, *ours], rounds)
        for level, median in zip(levels, medians[len(others) :], strict=True):
            columns = [*medians[:OURS], median, *medians[OURS : len(others)]]
            rows[level].append({"stage": stage, **dict(zip(COLUMNS, columns, strict=True))})
    of_ours = variants(scene, threads)
    medians = measure([at(level, f) for level in levels for f in of_ours.values()], rounds)
    return [
        {
            "schema": "edgeseg.kernels/1",
            **circumstances(),
            "frame": f"{width}x{height}",
            "network": f"{SPEC.width}x{SPEC.height}, {CLASSES} classes",
            "threads": threads,
            "level": level,
            "rows": [*rows[level], total(rows[level])],
            "variants": [
                {"stage": stage, "ours_ms": medians[place * len(of_ours) + number]}
                for number, stage in enumerate(of_ours)
            ],
        }
        for place, level in enumerate(levels)
    ]


def everything(folder: Path, rounds: int) -> None:
    """All frames, threads and levels: a document each and one page."""
    assert kernels is not None
    found = [
        document
        for frame in FRAMES
        for threads in (1, 2)
        for document in documents(frame, threads, kernels.levels(), rounds)
    ]
    for document in found:
        name = f"{document['frame']}-{document['threads']}-{document['level']}.json"
        write_json(folder / name, document)
    write_atomic(folder / "kernels.md", page(found))


def page(found: Sequence[dict[str, Any]]) -> str:
    """A table for each frame and number of threads, a column of ours for each level."""
    last = found[-1]
    parts = [
        "# The kernels around the network",
        f"`python bench/kernels.py --all`: a network of {last['network']}. "
        f"{last['machine']['cpu']}, {last['created']}, load average {last['load_1min']:.1f}.",
    ]
    for key in dict.fromkeys((each["frame"], each["threads"]) for each in found):
        here = [each for each in found if (each["frame"], each["threads"]) == key]
        levels = [each["level"] for each in here]
        heads = [*words("Stage")]
        heads += [Column(name, "ms") for name in ("As people write it", "Best of OpenCV")]
        heads += [Column(f"edgeseg, {level}", "ms") for level in levels]
        heads.append(Column("Memory floor", "ms"))
        lines = [
            (
                *(str(row[name]) for name in ("stage", "naive_ms", "best_opencv_ms")),
                *(str(each["rows"][place]["ours_ms"]) for each in here),
                str(row["floor_ms"]),
            )
            for place, row in enumerate(here[0]["rows"])
        ]
        lines += [
            (
                *(row["stage"], "–", "–"),
                *(str(each["variants"][place]["ours_ms"]) for each in here),
                "–",
            )
            for place, row in enumerate(here[0]["variants"])
        ]
        parts.append(f"## {key[0]}, {key[1]} thread{'s' if key[1] > 1 else ''}")
        parts.append(render_markdown(Table(tuple(heads), tuple(lines))))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and print, as Markdown or JSON."""
    options = _options()
    if kernels is None:
        sys.exit("edgeseg._native is not installed or EDGESEG_NATIVE=0: nothing to measure")
    if options.all:
        everything(options.all, options.rounds or 5)
        return
    (document,) = documents(options.frame, options.threads, [kernels.level()], options.rounds or 8)
    if options.json:
        print(json.dumps(document, indent=2))
        return
    print(render_markdown(table(document["rows"])))
    print(render_markdown(variant_table(document["variants"])))


def table(rows: list[dict[str, object]]) -> Table:
    """A line a stage."""
    heads = (
        *words("Stage"),
        Column("As people write it", "ms"),
        Column("Best of OpenCV", "ms"),
        Column("edgeseg", "ms"),
        Column("Memory floor", "ms"),
    )
    return Table(heads, tuple(tuple(str(value) for value in row.values()) for row in rows))


def variant_table(rows: list[dict[str, object]]) -> Table:
    """A line a variant."""
    heads = (*words("Variant"), Column("edgeseg", "ms"))
    return Table(heads, tuple(tuple(str(value) for value in row.values()) for row in rows))


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def _options() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--frame", type=_size, default=(1280, 720), help="frame size, WIDTHxHEIGHT")
    parser.add_argument("--threads", type=int, default=1, help="threads for OpenCV and the kernels")
    parser.add_argument("--rounds", type=int, help="rounds of blocks (default 8; 5 with --all)")
    parser.add_argument(
        "--all", type=Path, metavar="DIR", help="measure all cases and write the results to DIR"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
