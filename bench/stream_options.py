"""Run a stream with many of its options: through faults for minutes, and each on and off.

    nice python bench/stream_options.py faults --minutes 20
    python bench/stream_options.py cost

``faults``: ``edgeseg stream`` reads four MJPEG cameras on loopback. One dies every 30 s and comes
back 8 s later; mosquitto and a media server are killed (SIGKILL) every 150 s and come back 10 s
later. Masks are smoothed, regions blurred, uncertain frames looked for, four recordings written in
H.264, four overlays published, a clip written around each alert. Every event in the file of alerts
must also have reached a subscriber of the broker.

``cost``: CPU time of all threads and processes a frame of 1280x720, cases in turn.

The network is a threshold, so that the figures are those of all but the network.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from brokers import Listener, Mosquitto
from cameras import MjpegCamera
from harness import circumstances, command_line, say, turns, words, write_json
from streaming import threshold_network

from edgeseg.artifacts.files import write_atomic
from edgeseg.engines import open_engine
from edgeseg.engines.base import Engine
from edgeseg.options.clips import ClipOptions
from edgeseg.options.messaging import parse_broker
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.stream import (
    Background,
    Recording,
    Sink,
    Stream,
    StreamOptions,
    UncertainFrames,
    VideoPublisher,
    run,
)
from edgeseg.stream.alerts import AlertOutputs, Alerts, Clips, parse_rule
from edgeseg.stream.messaging import Mqtt, Publisher, Publishing
from edgeseg.stream.sinks.destination import parse_destination

RESULTS = Path(__file__).with_name("results") / "stream"
CAMERAS, FPS, SIZE = 4, 5.0, (640, 360)
DEATH_S, AWAY_S = 30.0, 8.0
SERVER_S, SERVER_AWAY_S = 150.0, 10.0
SAMPLE_S = 30.0
PATIENCE_S = 60.0
SETTLE_S = 15.0
RULE = "bright > 50%"


# The faults


def footprint(pid: int) -> dict[str, float]:
    """Resident memory, descriptors and threads of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return {
        "rss_mib": round(int(rss) / 1024, 1),
        "descriptors": sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        "threads": sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()),
    }


class MediaServer:
    """GStreamer's RTSP server, which takes what is published, on the same port each time."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        script = Path(__file__).with_name("media_server.py")
        command = ["/usr/bin/python3", str(script), str(self.port), str(CAMERAS)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL: the connections break."""
        self._process.kill()
        self._process.communicate()


def every(seconds: float, over: threading.Event, act: Callable[[int], None]) -> threading.Thread:
    """Start a thread that calls ``act(0)``, ``act(1)``, … at this interval until it is over."""

    def follow() -> None:
        for number in itertools.count():
            if over.wait(seconds):
                return
            act(number)

    thread = threading.Thread(target=follow)
    thread.start()
    return thread


def command(network: Path, urls: Sequence[str], broker: int, media: int, out: Path) -> list[str]:
    """The command line of the stream."""
    sources = [word for url in urls for word in ("--source", url)]
    return [
        *(sys.executable, "-m", "edgeseg", "stream", str(network), *sources),
        *("--no-window", "--json", "--keep-trying", "--threads", "1"),
        *("--smooth", "0.5", "--blur", "bright", "--keep-days", "1", "--codec", "h264"),
        *("--record", str(out / "drive.mp4"), "--record-minutes", "5"),
        *("--alert", RULE, "--alert-lines", str(out / "alerts.jsonl")),
        *("--alert-clips", str(out / "clips"), "--clip-before", "2", "--clip-after", "2"),
        *("--mqtt", f"mqtt://127.0.0.1:{broker}/soak"),
        *("--publish", f"rtsp://127.0.0.1:{media}/live"),
        *("--keep-uncertain", str(out / "uncertain"), "--per-hour", "20"),
    ]


def measure_faults(minutes: float) -> dict[str, Any]:
    """Run the stream for so long, and return what it held to."""
    faults = {"cameras": 0, "broker": 0, "media_server": 0}
    samples: list[dict[str, float]] = []
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cameras = [stack.enter_context(MjpegCamera(FPS)) for _ in range(CAMERAS)]
        for number, camera in enumerate(cameras):  # 250 frames from an alert to the next
            camera.size, camera.sent = SIZE, number * 250 // CAMERAS
        broker = Mosquitto(
            out, "persistence true", "autosave_on_changes true", "autosave_interval 1"
        )
        stack.callback(broker.kill)
        media = MediaServer()
        stack.callback(media.kill)
        listener = Listener(broker, "soak")
        stack.callback(listener.close)
        network = threshold_network(out / "bright.onnx", 144, 256)
        log = stack.enter_context((out / "log").open("w"))
        urls = [camera.url for camera in cameras]
        words_of_it = command(network, urls, broker.port, media.port, out)
        process = subprocess.Popen(words_of_it, stdout=subprocess.PIPE, stderr=log, text=True)
        stack.callback(process.kill)
        listener.first("soak/status", lambda status: status == "online")
        begun = time.monotonic()

        def kill_a_camera(number: int) -> None:
            camera = cameras[number % CAMERAS]
            camera.switch_off()
            faults["cameras"] += 1
            over.wait(AWAY_S)
            camera.switch_on()

        def kill_the_broker(_: int) -> None:
            broker.kill()
            faults["broker"] += 1
            over.wait(SERVER_AWAY_S)
            broker.start()

        def kill_the_media_server(_: int) -> None:
            media.kill()
            faults["media_server"] += 1
            over.wait(SERVER_AWAY_S)
            media.start()

        def sample(_: int) -> None:
            at = {"seconds": round(time.monotonic() - begun, 1)}
            samples.append(at | footprint(process.pid))

        threads = [
            every(DEATH_S - AWAY_S, over, kill_a_camera),
            every(SERVER_S - SERVER_AWAY_S, over, kill_the_broker),
            every(SERVER_S - SERVER_AWAY_S, over, kill_the_media_server),
            every(SAMPLE_S, over, sample),
        ]
        while time.monotonic() - begun < minutes * 60 and process.poll() is None:
            time.sleep(1)
        over.set()
        for thread in threads:
            thread.join()
        # A stream that ends while a server is away loses what waits for it, and says so.
        time.sleep(SETTLE_S)
        process.send_signal(signal.SIGTERM)
        report = json.loads(process.communicate(timeout=PATIENCE_S)[0].replace(f"{out}/", ""))
        return {
            "minutes": minutes,
            "faults": faults,
            "exit_code": process.returncode,
            "report": report,
            **delivered(out, listener),
            "footprint": samples,
        }


def delivered(out: Path, listener: Listener) -> dict[str, Any]:
    """The alerts, those of them that the subscriber did not hear in time, and the files."""
    events = [json.loads(line) for line in (out / "alerts.jsonl").read_text().splitlines()]
    missing = {event["id"] for event in events}
    deadline = time.monotonic() + PATIENCE_S
    while missing and time.monotonic() < deadline:
        time.sleep(0.5)
        missing -= {event["id"] for event in listener.of("soak/alerts")}
    return {
        "alerts": {
            "events": len(events),
            "raised": sum(event["event"] == "raised" for event in events),
            "not_delivered": len(missing),
        },
        "files": {
            "recordings": readable(sorted(out.glob("drive-*.mp4"))),
            "clips": readable(sorted((out / "clips").glob("*.mp4"))),
            "clips_named_but_missing": sum(
                not Path(event["clip"]).exists() for event in events if "clip" in event
            ),
        },
    }


def readable(paths: Sequence[Path]) -> dict[str, int]:
    """Files, those of them that PyAV decodes to their end, and frames."""
    import av

    whole, frames = 0, 0
    for path in paths:
        with contextlib.suppress(av.FFmpegError), av.open(str(path)) as container:
            found = sum(1 for _ in container.decode(video=0))
            whole, frames = whole + (found > 0), frames + found
    return {"files": len(paths), "readable": whole, "frames": frames}


def faults_table(found: dict[str, Any]) -> Table:
    """What is promised, and what was seen."""
    report, samples, files = found["report"], found["footprint"], found["files"]
    first, last = samples[0], samples[-1]
    age = report["frame_age_ms"]
    rows = [
        (
            "cameras / broker / media server killed",
            "{cameras} / {broker} / {media_server}".format(**found["faults"]),
        ),
        ("results, dropped frames", f"{report['frames']}, {report['dropped']}"),
        ("reconnects", str(sum(each["reconnects"] for each in report["sources"]))),
        ("frame age, p50 / p99", f"{age['p50']:.0f} / {age['p99']:.0f} ms"),
        *(
            (f"{name}, {first['seconds']:.0f} s / {last['seconds']:.0f} s", f"{a:g} / {b:g}")
            for name, a, b in (
                ("resident memory, MiB", first["rss_mib"], last["rss_mib"]),
                ("descriptors", first["descriptors"], last["descriptors"]),
                ("threads", first["threads"], last["threads"]),
            )
        ),
        (
            "alert events / raised / not delivered by MQTT",
            "{events} / {raised} / {not_delivered}".format(**found["alerts"]),
        ),
        *(
            (f"{name}: files / readable / frames", "{files} / {readable} / {frames}".format(**of))
            for name, of in files.items()
            if isinstance(of, dict)
        ),
        ("clips that an event names and that are missing", str(files["clips_named_but_missing"])),
        *(
            (f"{name}: results written / skipped / lost", counted(report, kind))
            for name, kind in (
                ("recordings", "Recording"),
                ("clips", "Clips"),
                ("published video", "VideoPublisher"),
                ("alert lines", "AlertLines"),
                ("messages to the broker", "Mqtt"),
            )
        ),
        ("exit code", str(found["exit_code"])),
    ]
    return Table(words("", "Measured"), tuple(rows))


def counted(report: dict[str, Any], kind: str) -> str:
    """What the outputs of a kind wrote, skipped and lost, as one report or one of each source."""
    sinks = [sink for sink in report["sinks"] if sink["kind"] == kind]
    # All sources share the queue of the recordings, and each of their reports its skips.
    skips = [sink["skipped"] for sink in sinks]
    skipped = max(skips) if kind == "Recording" else sum(skips)
    written, lost = (sum(sink[key] for sink in sinks) for key in ("written", "lost"))
    return f"{written} / {skipped} / {lost}"


# The cost

Case = tuple[StreamOptions, list[Sink]]


def _cases(engine: Engine, folder: Path, broker: Mosquitto) -> dict[str, Callable[[], Case]]:
    """Functions that make the options and outputs of each case."""
    plain = StreamOptions(realtime=False)
    address = parse_broker(f"mqtt://127.0.0.1:{broker.port}/cost")

    def record() -> Case:
        sink = Recording(folder / "drive.mp4", overlay=False, codec="h264", overwrite=True)
        return plain, [Background(sink)]

    def clips() -> Case:
        writer = Clips(folder, ClipOptions(), overlay=False)
        never = parse_rule("bright > 99%")
        return plain, [Alerts([never], engine.card.classes, AlertOutputs(clips=writer))]

    def messages() -> Case:
        return plain, [Publisher(Mqtt(address), engine.card, Publishing(address.prefix))]

    def publish() -> Case:
        live = VideoPublisher(parse_destination(str(folder / "live.m3u8")), overwrite=True)
        return plain, [Background(live, may_skip=False)]

    def uncertain() -> Case:
        return plain, [Background(UncertainFrames(folder / "uncertain", engine.card.classes, 20))]

    return {
        "none": lambda: (plain, []),
        "--smooth 0.2": lambda: (dataclasses.replace(plain, smooth=0.2), []),
        "--blur": lambda: (dataclasses.replace(plain, blur=("bright",)), []),
        "--alert-clips, no alert raised": clips,
        "--record-raw, H.264": record,
        "--publish, HLS, with the overlay": publish,
        "--keep-uncertain": uncertain,
        "--mqtt": messages,
    }


def measure_cost(frames: int, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds a frame, a value for each round."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = Mosquitto(folder)
        stack.callback(broker.kill)
        network = threshold_network(folder / "bright.onnx", 256, 512)
        engine = stack.enter_context(open_engine(network, threads=1))
        cases = _cases(engine, folder, broker)
        found: dict[str, list[float]] = {name: [] for name in cases}
        for _, name in turns(tuple(cases), rounds):
            options, sinks = cases[name]()
            source = f"test:1280x720@25?frames={frames}"
            before = sum(os.times()[:4])  # publishing has a process of its own
            report = run(Stream(source, engine, options), sinks)
            found[name].append(1000 * (sum(os.times()[:4]) - before) / report.frames)
            say(f"{name}: {found[name][-1]:.2f} ms")
    return found


def cost_rows(found: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Median of each case, and of its difference from the case without options of each round."""
    return [
        {
            "option": name,
            "cpu_ms": round(statistics.median(values), 2),
            "cost_ms": round(
                statistics.median(b - a for a, b in zip(found["none"], values, strict=True)), 2
            ),
        }
        for name, values in found.items()
    ]


def main() -> None:
    """Measure a part, and write JSON and Markdown."""
    parser = command_line(__doc__)
    parser.add_argument("part", choices=("faults", "cost"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if options.part == "faults":
        found = measure_faults(options.minutes)
        table = faults_table(found)
        title = f"# {CAMERAS} cameras for {options.minutes:g} minutes of faults"
    else:
        samples = measure_cost(options.frames, options.rounds)
        found = {"frames": options.frames, "rounds": options.rounds, "rows": cost_rows(samples)}
        columns = (*words("Option"), Column("CPU a frame", "ms"), Column("Cost", "ms"))
        table = Table(columns, tuple(tuple(map(str, row.values())) for row in found["rows"]))
        title = "# CPU time a frame of each option"
    document = {
        "schema": f"edgeseg.stream-{options.part}/1",
        **circumstances(),
        "load_1min_before": load,
        **found,
    }
    write_json(options.out / f"options-{options.part}.json", document)
    text = (
        f"{title}\n\n`python bench/stream_options.py {options.part}`; what it does is explained at "
        f"its head.\n\n{document['machine']['cpu']}, {document['created']}, load average "
        f"{load:.1f} before and {document['load_1min']:.1f} after.\n\n"
    )
    write_atomic(options.out / f"options-{options.part}.md", text + render_markdown(table) + "\n")
    print(render_markdown(table))


if __name__ == "__main__":
    main()
