"""Measure what obscuring classes and zones adds to a frame of a stream.

    python bench/privacy.py

CPU time of one thread a frame of 1280x720 with a label map of 512x256, in which rectangles with
the shape of pedestrians move; with the default margin and hold time. Cases take turns.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from harness import circumstances, command_line, turns, words, write_json
from numpy.typing import NDArray

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.artifacts.files import write_atomic
from edgeseg.options.privacy import Privacy
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.stream.privacy import PrivacyFilter
from edgeseg.stream.result import StreamResult

RESULTS = Path(__file__).with_name("results") / "stream"
SIZE, NETWORK = (720, 1280), (256, 512)
CARD = ModelCard(
    name="scene",
    arch="none",
    classes=ClassMap.model_validate({"names": ("road", "person")}),
    input=InputSpec(height=NETWORK[0], width=NETWORK[1]),
)
SCENES = {
    "no person": (0, 0.0),
    "1 person, 2 % of the frame": (1, 0.02),
    "4 persons, 8 %": (4, 0.02),
    "12 persons, 12 %": (12, 0.01),
    "1 person, 50 %": (1, 0.5),
}


class Still:
    """What a camera says of itself."""

    live = realtime = True
    fps: float | None = 25.0


def scene(number: int, persons: int, share: float) -> NDArray[np.uint8]:
    """A label map with so many rectangles, each of a share of it, moved on with the number."""
    labels = np.zeros(NETWORK, np.uint8)
    height = min(NETWORK[0], round((share * labels.size * 2) ** 0.5))
    width = round(share * labels.size / max(1, height))
    for person in range(persons):
        left = (person * NETWORK[1] // persons + 2 * number) % (NETWORK[1] - width)
        top = (37 * person) % (NETWORK[0] - height + 1)
        labels[top : top + height, left : left + width] = 1
    return labels


def milliseconds(options: Privacy, persons: int, share: float, frames: int) -> float:
    """Median CPU time of a frame."""
    privacy = PrivacyFilter(options, CARD.classes, [Still()])
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    samples = []
    for number in range(frames):
        labels = scene(number, persons, share)
        at = number / 25
        result = StreamResult(number, "camera:0", picture.copy(), at, labels=labels, card=CARD)
        begin = time.thread_time()
        privacy.apply(result)
        samples.append(time.thread_time() - begin)
    return statistics.median(samples) * 1000


def main() -> None:
    """Measure, and write JSON and Markdown."""
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40, help="frames per case and round")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        zone = Path(folder) / "zone.json"
        zone.write_text('{"polygons": [[[0.1, 0.1], [0.5, 0.1], [0.5, 0.6], [0.1, 0.6]]]}')
        cases = {
            (scene, name): (kind, SCENES[scene])
            for scene in SCENES
            for name, kind in (
                ("--blur", Privacy(blur=("person",))),
                ("--pixelate", Privacy(pixelate=("person",))),
            )
        }
        cases["a zone of 20 %", "--cover"] = Privacy(cover=(str(zone),)), (0, 0.0)
        samples: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        for _, case in turns(tuple(cases), options.rounds):
            kind, (persons, share) = cases[case]
            samples[case].append(milliseconds(kind, persons, share, options.frames))
    rows = [
        {"scene": scene, "option": option, "cpu_ms": round(statistics.median(found), 2)}
        for (scene, option), found in samples.items()
    ]
    document = {
        "schema": "edgeseg.privacy/1",
        **circumstances(),
        "opencv": cv2.__version__,
        "rounds": options.rounds,
        "frames": options.frames,
        "rows": rows,
    }
    write_json(options.out / "privacy.json", document)
    columns = (*words("Scene", "Option"), Column("CPU a frame", "ms"))
    table = Table(columns, tuple(tuple(map(str, row.values())) for row in rows))
    text = (
        "# The cost of obscuring\n\n"
        "`python bench/privacy.py`: frames of 1280x720, label maps of 512x256, one thread, margin "
        "and hold time\nas by default. Medians.\n\n"
        f"{document['machine']['cpu']}, OpenCV {cv2.__version__}, {document['created']}, "
        f"{options.rounds} rounds of {options.frames} frames,\n"
        f"load average {document['load_1min']:.1f} after the run.\n\n"
    )
    write_atomic(options.out / "privacy.md", text + render_markdown(table) + "\n")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
