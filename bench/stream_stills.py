"""Draw one frame of a stream as it leaves with each way to look, for docs/streaming.md.

    python bench/stream_stills.py [OUT.jpg]

The frame comes from recordings of ``edgeseg stream`` with the bundled network for nuclei, on a
clip of one bundled picture.
"""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from harness import command_line
from numpy.typing import NDArray
from stream_scene import SAMPLE, workshop

OUT = Path(__file__).with_name("results") / "stream" / "stills.jpg"
FRAMES = 10
SIZE = (1280, 720)
WIDTH = 640
ZONE = [[0.6, 0.0], [1.0, 0.0], [1.0, 0.5], [0.75, 0.5]]

WAYS = (
    ("raw", ("--record-raw", "{out}")),
    ("overlay", ("--record", "{out}")),
    ("raw, --pixelate nucleus", ("--record-raw", "{out}", "--pixelate", "nucleus")),
    ("overlay, --cover zone.json", ("--record", "{out}", "--cover", "{zone}")),
)


def main() -> None:
    """Record each way and write the picture."""
    parser = command_line(__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=OUT)
    options = parser.parse_args()
    with workshop() as name:
        work = Path(name)
        clip = write_clip(work / "clip.avi")
        (work / "zone.json").write_text(json.dumps({"polygons": [ZONE]}))
        stills = [still(work, clip, title, ways) for title, ways in WAYS]
    rows = [np.hstack(stills[at : at + 2]) for at in range(0, len(stills), 2)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.out), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])
    print(options.out)


def write_clip(path: Path) -> Path:
    """Some frames of the middle of a stained picture, in the shape of a camera's."""
    picture = cv2.imread(str(sorted((SAMPLE / "train" / "images").iterdir())[0]))
    assert picture is not None
    height = picture.shape[1] * 9 // 16
    top = (picture.shape[0] - height) // 2
    frame = cv2.resize(picture[top : top + height], SIZE, interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, SIZE)
    for _ in range(FRAMES):
        writer.write(frame)
    writer.release()
    return path


def still(work: Path, clip: Path, title: str, ways: tuple[str, ...]) -> NDArray[np.uint8]:
    """The last frame that was recorded, with its title."""
    out = work / f"{title}.mkv"
    told = [way.format(out=out, zone=work / "zone.json") for way in ways]
    command = ["-m", "edgeseg", "stream", "bundled:nuclei", "--source", str(clip), "--no-window"]
    subprocess.run([sys.executable, *command, *told], check=True, stdout=subprocess.DEVNULL)
    capture = cv2.VideoCapture(str(out))
    last = None
    while (frame := capture.read()[1]) is not None:
        last = frame
    capture.release()
    assert last is not None
    small = cv2.resize(last, (WIDTH, WIDTH * 9 // 16), interpolation=cv2.INTER_AREA)
    cv2.rectangle(small, (0, 0), (11 * len(title) + 16, 30), (20, 20, 20), -1)
    white, font = (255, 255, 255), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(small, title, (8, 21), font, 0.6, white, 1, cv2.LINE_AA)
    return np.asarray(cv2.copyMakeBorder(small, 2, 2, 2, 2, cv2.BORDER_CONSTANT), np.uint8)


if __name__ == "__main__":
    main()
