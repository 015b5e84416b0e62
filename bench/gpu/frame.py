"""The frame around the network on the NVIDIA GPU of this machine: right, and how fast.

    python bench/gpu/frame.py [ENGINE] [--out DIR]

This has not been run on a GPU yet: there was none at hand. It shows, as JSON and as Markdown:

- whether each kernel gives the bits of its twin on the processor, on random frames of odd and
  even sizes;
- what share of the memory bandwidth each kernel reaches at 720p and 1080p, batch 1 and 8, around
  a 512 × 256 network: the bytes it must read and write once, over its time between two events,
  held against a copy within the device of 256 MiB in the same run;
- with an engine (``model.PRECISION.engine``),
  whole frames a second, upload and download included, against the network alone through
  ``infer`` and against preprocessing and drawing on the processor;
- what compute-sanitizer says of the first part, where it is installed.

Without a GPU it ends with exit 4. ``--check`` does the first part alone.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
from harness import circumstances, command_line, write_json
from numpy.typing import NDArray

from edgeseg import machine
from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard, default_palette
from edgeseg.artifacts.files import write_atomic
from edgeseg.engines.base import Engine
from edgeseg.engines.cuda import Cuda, DeviceMemory, open_cuda
from edgeseg.engines.cuda.kernels import Argmax, Kernels, load_kernels
from edgeseg.engines.cuda.stages import DeviceTensors, FrameJob, Stages
from edgeseg.engines.pipeline import CpuPipeline, FramePipeline
from edgeseg.engines.tensorrt.run import open_plan
from edgeseg.errors import EdgesegError
from edgeseg.ops.argmax import argmax
from edgeseg.ops.overlay import Look, overlay_restored
from edgeseg.ops.preprocess import preprocess
from edgeseg.report.tables import Column, Table, render_markdown

RESULTS = Path(__file__).parents[1] / "results" / "gpu"
NO_GPU = 4
CLASSES = 21
SIZES = ((720, 1280), (1080, 1920))
BATCHES = (1, 8)
ODD = ((1, 1), (7, 33), (479, 641), (333, 2000))
LOOK = Look(default_palette(CLASSES, 0), 0.5, clear={0})


@dataclass(frozen=True)
class Options:
    """How long to measure."""

    rounds: int
    calls: int


class Bench:
    """Kernels around a network that is not there: its output is what the caller wrote."""

    def __init__(self, cuda: Cuda, memory: DeviceMemory, job: FrameJob, resize: str) -> None:
        self.cuda, self.memory, self.job = cuda, memory, job
        self.stream = memory.stream()
        self.kernels: Kernels = load_kernels(memory)
        spec = InputSpec(height=256, width=512, resize=resize)  # type: ignore[arg-type]  # checked by pydantic
        names = tuple(f"class {number}" for number in range(CLASSES))
        card = ModelCard(name="bench", arch="none", classes=ClassMap(names=names), input=spec)
        self.spec, pixels = spec, job.batch * spec.height * spec.width
        self.tensor = memory.pinned((job.batch, *spec.shape), np.float32)
        self.logits = memory.pinned((job.batch, CLASSES, spec.height, spec.width), np.float32)
        given, taken = memory.device(pixels * 12), memory.device(pixels * CLASSES * 4)
        self.network = DeviceTensors(card, given, taken, CLASSES)
        self.stages = Stages(memory, self.kernels, self.network, job, self.stream)

    def run(self, frames: NDArray[np.uint8], logits: NDArray[np.float32]) -> dict[str, Any]:
        """Tensor, labels and overlay of one batch."""
        buffers = self.stages.buffers[0]
        np.copyto(buffers.frames.host.array, frames)
        np.copyto(self.logits.array, logits)
        self.stages.queue_before(buffers, self.stream)
        where, nbytes = self.logits.address, self.logits.array.nbytes
        self.cuda.copy_in(self.network.output, where, nbytes, self.stream)
        where, nbytes = self.tensor.address, self.tensor.array.nbytes
        self.cuda.copy_out(where, self.network.input, nbytes, self.stream)
        self.stages.queue_after(buffers, self.stream)
        self.cuda.synchronize(self.stream)
        made = {"preprocess": self.tensor.array, "argmax": buffers.labels.host.array}
        if buffers.painted is not None:
            made["overlay"] = buffers.painted.host.array
        return made

    def timed(self, queue: Callable[[], object], options: Options) -> float:
        """Milliseconds of what ``queue`` queues: median over rounds of the mean of their calls."""
        start, end, times = self.memory.event(), self.memory.event(), []
        for _ in range(options.rounds + 1):
            self.cuda.record(start, self.stream)
            for _ in range(options.calls):
                queue()
            self.cuda.record(end, self.stream)
            times.append(self.cuda.elapsed_ms(start, end) / options.calls)
        return statistics.median(times[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print Markdown, write both documents."""
    options = _options(arguments)
    if not machine.gpus():
        print("bench/gpu/frame.py needs an NVIDIA GPU; nvidia-smi lists none", file=sys.stderr)
        sys.exit(NO_GPU)
    cuda = open_cuda()
    checks = list(correctness(cuda))
    if options.check:
        print(json.dumps(checks, indent=2))
        sys.exit(0 if all(row["same_bits"] for row in checks) else 1)
    effort = Options(options.rounds, options.calls)
    document = {
        "schema": "edgeseg.gpu-frame/1",
        **circumstances(),
        "cuda": asdict(cuda.facts) | {"adapter": cuda.adapter},
        "correctness": checks,
        "bandwidth": list(bandwidth(cuda, effort)),
        "sanitizer": sanitizer(),
    }
    if options.engine is not None:
        document["throughput"] = list(throughput(options.engine, cuda, effort))
    write_json(options.out / "frame.json", document)
    page = markdown(document)
    write_atomic(options.out / "frame.md", page)
    print(page)


def scene(job: FrameJob, spec: InputSpec) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Noise as frames; classes in regions of about 32 pixels, and noise that ties."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (job.batch, *job.shape), dtype=np.uint8)
    shape = (job.batch, CLASSES, spec.height // 32, spec.width // 32)
    coarse = rng.integers(-9, 9, shape).astype(np.float32)
    return frames, coarse.repeat(32, 2).repeat(32, 3)


def correctness(cuda: Cuda) -> Iterator[dict[str, Any]]:
    """A row a stage and size: whether the GPU gives the bits of the processor's twin."""
    for size in (*SIZES, *ODD):
        for resize in ("stretch", "letterbox"):
            job = FrameJob(size, batch=2, look=LOOK)
            with cuda.current(), DeviceMemory(cuda) as memory:
                bench = Bench(cuda, memory, job, resize)
                frames, logits = scene(job, bench.spec)
                found = bench.run(frames, logits)
            labels, spec = argmax(logits), bench.spec
            pairs = list(zip(frames, labels, strict=True))
            twins: dict[str, Any] = {
                "preprocess": [preprocess(frame, spec) for frame in frames],
                "argmax": labels,
                "overlay": [overlay_restored(*pair, spec, LOOK) for pair in pairs],
            }
            for stage, twin in twins.items():
                same = bool(np.array_equal(found[stage], np.stack(list(twin))))
                yield {"stage": stage, "size": size, "resize": resize, "same_bits": same}


def bandwidth(cuda: Cuda, options: Options) -> Iterator[dict[str, Any]]:
    """A row a kernel, size and batch."""
    with cuda.current(), DeviceMemory(cuda) as memory:
        peak = copy_rate(cuda, memory, options)
    for size in SIZES:
        for batch in BATCHES:
            job = FrameJob(size, batch=batch, look=LOOK)
            with cuda.current(), DeviceMemory(cuda) as memory:
                bench = Bench(cuda, memory, job, "stretch")
                bench.run(*scene(job, bench.spec))
                for stage, (queue, nbytes) in stages(bench).items():
                    ms = bench.timed(queue, options)
                    rate = nbytes / ms / 1e6
                    row = {"stage": stage, "size": size, "batch": batch, "ms": ms}
                    yield row | {"gb_per_s": rate, "share_of_copy": rate / peak}


def stages(bench: Bench) -> dict[str, tuple[Callable[[], object], int]]:
    """What queues each kernel alone, and the bytes that it must move."""
    buffers, spec, batch = bench.stages.buffers[0], bench.spec, bench.job.batch
    frame = batch * bench.job.size[0] * bench.job.size[1] * 3
    pixels = batch * spec.height * spec.width
    # Of a frame that is reduced a lot the resize reads four pixels for each that it writes.
    read = min(frame, pixels * 4 * 3)
    of = Argmax(bench.network.output, buffers.labels.device, CLASSES, spec.height * spec.width)
    return {
        "preprocess": (lambda: bench.stages.preprocess(buffers, bench.stream), read + pixels * 12),
        "argmax": (
            lambda: bench.kernels.argmax(of, batch, bench.stream),
            pixels * (4 * CLASSES + 1),
        ),
        "overlay": (lambda: bench.stages.overlay(buffers, bench.stream), 2 * frame + pixels),
    }


def copy_rate(cuda: Cuda, memory: DeviceMemory, options: Options) -> float:
    """GB/s of a copy within the device, read and written bytes together."""
    nbytes, stream = 256 << 20, memory.stream()
    source, target = memory.device(nbytes), memory.device(nbytes)
    start, end, times = memory.event(), memory.event(), []
    for _ in range(options.rounds):
        cuda.record(start, stream)
        cuda.copy_within(target, source, nbytes, stream)
        cuda.record(end, stream)
        times.append(cuda.elapsed_ms(start, end))
    return 2 * nbytes / statistics.median(times) / 1e6


def throughput(path: Path, cuda: Cuda, options: Options) -> Iterator[dict[str, Any]]:
    """A row a size and batch: frames a second three ways, in turns."""
    with open_plan(path, cuda=cuda) as engine:
        for size in SIZES:
            for batch in BATCHES:
                row: dict[str, Any] = {"size": size, "batch": batch}
                job = FrameJob(size, batch=batch, look=LOOK)
                try:
                    with engine.open_pipeline() as on_gpu, CpuPipeline(engine) as by_cpu:
                        row["on_gpu"] = on_gpu.on_gpu
                        yield row | rates(engine, on_gpu, by_cpu, job, options)
                except EdgesegError as error:
                    yield row | {"error": str(error)}


def rates(
    engine: Engine, on_gpu: FramePipeline, by_cpu: FramePipeline, job: FrameJob, options: Options
) -> dict[str, float]:
    """Frames a second: whole ones with two batches under way, the network, stages on the CPU."""
    batch, _ = scene(job, engine.card.input)
    frames = list(batch)
    tensor = np.zeros((job.batch, *engine.card.input.shape), np.float32)

    def whole() -> None:
        on_gpu.submit(frames, job.look)
        for _ in range(options.calls - 1):
            on_gpu.submit(frames, job.look)
            on_gpu.collect()
        on_gpu.collect()

    def times(call: Callable[[], object]) -> Callable[[], None]:
        def calls() -> None:
            for _ in range(options.calls):
                call()

        return calls

    ways = {
        "frame_fps": whole,
        "network_fps": times(lambda: engine.infer(tensor)),
        "cpu_stages_fps": times(lambda: by_cpu.run(frames, job.look)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(options.rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if round_:
                seconds[name].append(time.perf_counter() - began)
    count = options.calls * job.batch
    found = {name: count / statistics.median(each) for name, each in seconds.items()}
    return found | {"share_of_network": found["frame_fps"] / found["network_fps"]}


def sanitizer() -> str:
    """The last line of compute-sanitizer over ``--check``."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return "compute-sanitizer is not installed"
    command = [tool, "--error-exitcode", "9", sys.executable, __file__, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "=====" in line]
    return f"exit {done.returncode}: {said[-1] if said else 'no report'}"


def markdown(document: dict[str, Any]) -> str:
    """The page: machine, correctness, bandwidth, throughput."""
    facts = document["cuda"]
    wrong = [row for row in document["correctness"] if not row["same_bits"]]
    lines = [
        "# The frame around the network, on this GPU",
        f"{document['created']} · {facts['name']} · driver for CUDA {facts['driver_version']} · "
        f"{facts['adapter']}",
        f"Kernels against their twins: {len(document['correctness'])} comparisons, "
        f"{len(wrong)} differ. {document['sanitizer']}.",
        _table(document["bandwidth"]),
    ]
    if "throughput" in document:
        lines.append(_table(document["throughput"]))
    return "\n\n".join(lines) + "\n"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = tuple(Column(name, number=name not in ("stage", "size", "error")) for name in names)
    body = tuple(tuple(_cell(row.get(name)) for name in names) for row in rows)
    return render_markdown(Table(columns, body))


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"{value[1]}x{value[0]}"
    return f"{value:.3g}" if isinstance(value, float) else "–" if value is None else str(value)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("engine", type=Path, nargs="?", help="model.PRECISION.engine")
    parser.add_argument("--check", action="store_true", help="correctness alone; exit 1 if not")
    parser.add_argument("--rounds", type=int, default=20, help="of each measurement (default 20)")
    parser.add_argument("--calls", type=int, default=50, help="a round (default 50)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
