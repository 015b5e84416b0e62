"""Compare a local archive cluster, with one worker killed half-way, with plain ``edgeseg infer``.

``python bench/archive.py ENGINE OUT FOLDER…`` writes OUT/archive.json and OUT/archive.md. Each
variant runs as whole processes with the commands a user would type, in turns, and writes label
maps without overlays.
"""

import csv
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import command_line, now, write_json

from edgeseg.artifacts.documents import Document
from edgeseg.machine import describe

ROOT = Path(__file__).parents[1]
PLAIN, WHOLE, KILLED = "plain `edgeseg infer`", "two workers", "two workers, one killed half-way"


class Run(Document):
    """One command: how long it took, and what it left.

    ``steady_per_second`` is the rate between the first and the last label map, without start
    and end.
    """

    way: str
    seconds: float
    steady_per_second: float
    load_before: float
    label_maps: int
    lost: int
    duplicates: int
    done_twice: int
    workers: int
    differing: int


def command(engine: Path, folders: list[Path], out: Path, *options: str) -> list[str]:
    """A command line."""
    line = [sys.executable, "-m", "edgeseg", "infer", str(engine), *map(str, folders)]
    return [*line, "--no-overlays", "--out", str(out), "--json", *options]


def lines(out: Path) -> list[dict[str, Any]]:
    """All records of a journal whose line is whole, in the order of files."""
    return [
        json.loads(line)
        for path in (out / "journal").glob("*.jsonl")
        for line in path.read_text().split("\n")[:-1]
    ]


def kill_half_way(pictures: int) -> Callable[[Path], bool]:
    """A watcher that kills, once, the worker whose journal grew last when half is done."""

    def watch(out: Path) -> bool:
        done = lines(out)
        if len(done) < pictures // 2:
            return False
        newest = max((out / "journal").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
        os.kill(int(newest.stem.split("-")[-2]), signal.SIGKILL)
        return True

    return watch


def run(line: list[str], out: Path, watch: Callable[[Path], bool] | None) -> float:
    """Seconds of the whole process; fails unless it ended with 0."""
    before = time.monotonic()
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, env=settings) as process:
        while watch is not None and process.poll() is None:
            watch = None if watch(out) else watch
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {process.returncode}")
    return time.monotonic() - before


def measured(way: str, line: list[str], out: Path, pictures: set[str], reference: Path) -> Run:
    """Run a way and hold what it left against the label maps of the plain command."""
    load = os.getloadavg()[0]
    watch = kill_half_way(len(pictures)) if way == KILLED else None
    seconds = run(line, out, watch)
    done = lines(out)
    rows = Counter(row["name"] for row in table(out)) if done else Counter(pictures)
    files = {path.name.removesuffix(".labels.png"): path for path in out.glob("*.labels.png")}
    written = [path.stat().st_mtime for path in files.values()]
    return Run(
        way=way,
        seconds=round(seconds, 1),
        steady_per_second=round((len(files) - 1) / (max(written) - min(written)), 2),
        load_before=round(load, 1),
        label_maps=len(files),
        lost=len(pictures - files.keys()) + len(pictures - rows.keys()),
        duplicates=sum(count - 1 for count in rows.values()),
        done_twice=len(done) - len({record["unit"] for record in done}),
        workers=len({record["worker"] for record in done}) or 1,
        differing=sum(
            path.read_bytes() != (reference / path.name).read_bytes() for path in files.values()
        ),
    )


def table(out: Path) -> list[dict[str, str]]:
    """The rows of ``pictures.csv``."""
    with (out / "pictures.csv").open() as stream:
        return list(csv.DictReader(stream))


def markdown(document: dict[str, Any]) -> str:
    """The result for people."""
    pictures = document["pictures"]
    rows = [
        "| way | seconds, median | pictures a second | the same without start and end | workers "
        "| lost | counted twice | done twice | label maps that differ |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way in (PLAIN, WHOLE, KILLED):
        runs = [one for one in document["runs"] if one["way"] == way]
        seconds = statistics.median(one["seconds"] for one in runs)
        counts = ("workers", "lost", "duplicates", "done_twice", "differing")
        most = [str(max(one[key] for one in runs)) for key in counts]
        steady = statistics.median(one["steady_per_second"] for one in runs)
        speed = f"{seconds:.1f} | {pictures / seconds:.1f} | {steady:.1f}"
        rows.append(f"| {way} | {speed} | {' | '.join(most)} |")
    loads = [one["load_before"] for one in document["runs"]]
    head = (
        f"{pictures} pictures, `{document['engine']}`, {document['rounds']} rounds in turns, "
        f"{document['cpu']}, {document['cores']} cores, {document['created'][:10]}. Whole "
        "processes: two workers include the start of Ray. Other work shared the machine "
        f"(load {min(loads):.0f} to {max(loads):.0f} before the runs).\n"
    )
    return "\n".join(["# An archive with a worker killed", "", head, *rows, ""])


def main() -> None:
    """Measure and write."""
    parser = command_line(__doc__)
    parser.add_argument("engine", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    pictures = {path.stem for folder in given.folders for path in folder.iterdir()}
    engine, folders = given.engine.absolute(), [folder.absolute() for folder in given.folders]
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        reference = Path(name) / "0-plain"
        for turn in range(given.rounds):
            for way in (PLAIN, WHOLE, KILLED):
                out = reference if not runs else Path(name) / f"{turn}-{way[:2]}"
                cluster = () if way == PLAIN else ("--cluster", "local", "--workers", "2")
                line = command(engine, folders, out, *cluster)
                runs.append(measured(way, line, out, pictures, reference).model_dump())
                print(runs[-1], file=sys.stderr)
                if out != reference:
                    shutil.rmtree(out)
    machine = describe()
    document = {
        "created": now(),
        "engine": given.engine.name,
        "pictures": len(pictures),
        "rounds": given.rounds,
        "cpu": machine.cpu,
        "cores": os.cpu_count(),
        "runs": runs,
    }
    write_json(given.out / "archive.json", document)
    (given.out / "archive.md").write_text(markdown(document))


if __name__ == "__main__":
    main()
