"""Compare the camera loop with its peers, each run as its own users run it.

    python bench/peers/setup.py                       # once: one environment per peer
    python bench/peers/run.py --run runs/NAME         # about six minutes
    python bench/peers/run.py --page                  # page and plot from the document alone

Every peer is a process in its own environment and gets the same 720p H.264 clip, the same
network (Ultralytics: its own) and all cores. Each peer runs one block per round, in random
order. Figures are medians over blocks during which other processes used at most 12 % of a core;
comparisons are medians of ratios within a round. Then each live loop runs alone, on a 25 fps
RTSP camera on loopback. The run folder must contain ``model.safetensors``, ``model.onnx``,
``model.int8.onnx`` and the ``….openvino.onnx`` of both precisions.
"""

import argparse
import contextlib
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the clip and the camera

import cases
from document import Comparison, LiveRow, Measured, Row
from figures import Samples, ages, ratio
from harness import command_line, errors_as_exit_codes, now
from host import Peer, interleave
from page import draw, page
from setup import NAMES, WORK
from stream_live import FPS, rtsp_server
from stream_scene import make_clip

from edgeseg import machine
from edgeseg.artifacts.documents import load
from edgeseg.artifacts.files import atomic_path, write_atomic
from edgeseg.errors import InferenceError
from edgeseg.loading import load as open_artifact
from edgeseg.runs import newest_run

RESULTS = Path(__file__).resolve().parents[1] / "results" / "peers"

logger = logging.getLogger("edgeseg.bench.peers")


def main() -> None:
    """Measure and write the document, the page and the plot."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _options()
    document = options.out / "peers.json"
    with errors_as_exit_codes():
        if not options.page:
            measure(options).save(document)
        found = load(Measured, document)
        write_atomic(options.out / "README.md", page(found))
        draw(found, options.out / "peers.png")
    print(page(found))


def measure(options: argparse.Namespace) -> Measured:
    """Start the peers, measure files and then the camera.

    Raises:
        UsageError: A peer is not set up, or the run lacks a file.
        InferenceError: A peer ended or failed.
    """
    work, run = options.work.resolve(), (options.run or newest_run()).resolve()
    chosen, remarks = cases.present(work, run, options.only)
    load_before = os.getloadavg()[0]
    clip = _clip(work, options)
    network = _network(work, run)
    with contextlib.ExitStack() as stack:
        peers = {}
        for case in chosen:
            logger.info("starting %s, %s", case.name, case.precision)
            peer = stack.enter_context(cases.start(case, work, run, work / "network.json"))
            peers[case.key] = peer
        samples = _files(peers, clip, options)
        versions: dict[str, dict[str, str]] = {}
        for case in chosen:
            versions.setdefault(case.peer, {}).update(peers[case.key].about["versions"])
        threads = {case.peer: peers[case.key].about["threads"] for case in chosen}
    live, failed = _live(chosen, work, run, clip, options.live_seconds)
    return Measured(
        measured=now(),
        command=_command(run, options),
        remark=options.remark,
        machine=machine.describe().to_dict(),
        load_before=load_before,
        rounds=options.rounds,
        seconds=options.seconds,
        live_seconds=options.live_seconds,
        clip=options.video.name if options.video else "the sample's pictures",
        network=network,
        versions=versions,
        threads=threads,
        remarks=(*remarks, *failed),
        rows=tuple(_row(case, samples[case.key]) for case in chosen),
        live=tuple(live),
        comparisons=tuple(_comparisons(samples)),
    )


def _files(peers: dict[str, Peer], clip: Path, options: argparse.Namespace) -> dict[str, Samples]:
    """One block each a round, in random order."""
    samples = {key: Samples() for key in peers}
    keys = {id(peer): key for key, peer in peers.items()}
    every = list(peers.values())
    for number, peer, block in interleave(every, clip, options.rounds, options.seconds):
        mine = samples[keys[id(peer)]].blocks
        mine[number] = block
        logger.info(
            "round %d of %d: %s, %.1f fps, others %.2f cores",
            *(number + 1, options.rounds, peer.name, block.fps, block.other_cores),
        )
    return samples


def _live(
    chosen: Sequence[cases.Case], work: Path, run: Path, clip: Path, seconds: float
) -> tuple[list[LiveRow], list[str]]:
    """Each live loop alone in a process of its own, on the camera; and what failed there."""
    rows: list[LiveRow] = []
    failed: list[str] = []
    with rtsp_server(clip.parent) as url:
        for case in chosen:
            if not case.live or seconds <= 0:
                continue
            logger.info("live: %s", case.name)
            try:
                with cases.start(case, work, run, work / "network.json") as peer:
                    peer.block(clip, 1.0)  # warms it up
                    answer = peer.ask(do="live", source=f"{url}/{clip.name}", seconds=seconds)
                rows.append(_live_row(case, answer))
            except InferenceError as error:
                logger.warning("%s", error.message)
                failed.append(f"live: {error.message}.")
    return rows, failed


def _live_row(case: cases.Case, answer: dict[str, Any]) -> LiveRow:
    found = ages(answer, FPS)
    return LiveRow(
        key=case.key,
        name=case.name,
        precision=case.precision,
        p50=found.p50,
        p99=found.p99,
        late=found.late_ms,
        shown=found.shown,
        sent=found.sent,
        cpu_cores=answer["busy_seconds"] / (answer["shown"][-1] - answer["shown"][0]),
    )


def _row(case: cases.Case, found: Samples) -> Row:
    quiet = found.quiet
    return Row(
        key=case.key,
        peer=case.peer,
        name=case.name,
        precision=case.precision,
        alone=case.alone,
        fps=found.median("fps") or 0.0,
        spread=found.spread,
        blocks=len(quiet),
        noisy=found.noisy,
        frames=sum(len(block.work_ms) for block in quiet.values()),
        infer_ms=found.median("infer_ms") or 0.0,
        outside_ms=found.median("outside_ms"),
        work_ms=found.percentiles("work_ms"),
        loop_ms=found.percentiles("loop_ms"),
        cpu_ms=found.median("cpu_ms"),
        peak_mib=max(block.peak_mib for block in found.blocks.values()),
    )


def _comparisons(samples: dict[str, Samples]) -> Sequence[Comparison]:
    rows = []
    for pair in cases.compared(list(samples)):
        found = ratio(samples[pair.mine], samples[pair.theirs], pair.what)
        if found is not None:
            rows.append(
                Comparison(
                    what=pair.what,
                    mine=pair.mine,
                    theirs=pair.theirs,
                    median=found.median,
                    low=found.low,
                    high=found.high,
                    rounds=found.rounds,
                    at_most=pair.at_most,
                )
            )
    return rows


def _clip(work: Path, options: argparse.Namespace) -> Path:
    """The clip, long enough for the camera and for the quickest peer; kept for the next run."""
    frames = round(max(options.live_seconds + 15, 10 * options.seconds, 26) * FPS)
    shown = options.video.stem if options.video else "sample"
    clip = work / "media" / f"{shown}-{frames}.mp4"
    clip.parent.mkdir(parents=True, exist_ok=True)
    if not clip.exists():
        logger.info("writing %s", clip)
        with atomic_path(clip) as partial:
            make_clip(partial, frames, fps=FPS, video=options.video)
    return clip


def _network(work: Path, run: Path) -> str:
    """Write down what the loops have to know of the network; what it is, in words."""
    with open_artifact(run / cases.FP32) as engine:
        card = engine.card
    spec = card.input
    known = {
        "width": spec.width,
        "height": spec.height,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "palette": [list(colour) for colour in card.classes.palette],
    }
    write_atomic(work / "network.json", json.dumps(known))
    return f"{card.arch} of {len(card.classes)} classes at {spec.width}x{spec.height}"


def _command(run: Path, options: argparse.Namespace) -> str:
    """What measures the same again, without the folders of this machine."""
    words = ["--run", run.name, "--rounds", options.rounds, "--seconds", f"{options.seconds:g}"]
    words += ["--live-seconds", f"{options.live_seconds:g}"]
    words += ["--video", options.video.name] if options.video else []
    words += ["--only", *options.only] if options.only else []
    return shlex.join(["python", "bench/peers/run.py", *map(str, words)])


def _options() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--run", type=Path, help="run folder; default: the newest under runs/")
    parser.add_argument(
        "--work", type=Path, default=WORK, help="working folder of setup.py (default runs/peers)"
    )
    parser.add_argument("--only", nargs="+", choices=(*NAMES, "trtexec"), metavar="PEER")
    parser.add_argument("--video", type=Path, help="video used as the content of the clip")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per block (default 2)")
    parser.add_argument(
        "--live-seconds", type=float, default=8, help="seconds per live loop (default 8; 0: none)"
    )
    parser.add_argument(
        "--remark", help="remark to store and show with the results, such as other load"
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="measure nothing; redraw the page and plot from stored results",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
