"""What TensorRT-RTX does on the NVIDIA GPU of this machine, and both libraries of CUDA on it.

    python bench/gpu/probe.py RUN [--wheels DIR] [--pictures DIR] [--out DIR]

This has not been run on a GPU yet: there was none at hand. ``RUN`` holds ``model.onnx`` and
``model.ranges.json``, as training, export and calibration leave them. The network is built in
FP32, FP16 and INT8, with no target and with the GPU's own; each engine is run through
cuda-python and pycuda, with CUDA graph and without; its labels are held against ONNX Runtime's
on the graph that it was compiled from and on the FP32 network. What fails is a row with its
reason, not the end. Latencies are of ``infer`` alone, medians of interleaved blocks.

``--wheels`` names a folder with the wheels of tensorrt-rtx, cuda-python and pycuda where the
machine has no network; a wheel may lie there in pieces, ``NAME.whl.part0``, ``.part1`` …. Without
a GPU it ends with exit 4. ``OUT/probe.json`` and ``OUT/probe.md`` are written at the end.
"""

import argparse
import importlib.util
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
from harness import circumstances, command_line, turns, write_json
from numpy.typing import NDArray

from edgeseg import machine
from edgeseg.artifacts.card import Precision
from edgeseg.artifacts.files import write_atomic
from edgeseg.building import BuildConfig, build
from edgeseg.data.folders import bundled_sample, load_image
from edgeseg.engines import open_engine
from edgeseg.engines.cuda import Cuda, DeviceMemory, open_cuda
from edgeseg.engines.tensorrt import PlanOptions
from edgeseg.engines.tensorrt.run import TensorRtEngine, open_plan
from edgeseg.errors import EdgesegError
from edgeseg.ops.preprocess import preprocess
from edgeseg.report.tables import Column, Table, render_markdown

RESULTS = Path(__file__).with_name("results")
ADAPTERS = ("cuda-python", "pycuda")
COMPILED_FROM: dict[Precision, str] = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.tensorrt.onnx",
}
NO_GPU = 4

Batches = list[NDArray[np.float32]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Probe, print Markdown, write both documents."""
    options = _options(arguments)
    if not machine.gpus():
        print("bench/gpu/probe.py needs an NVIDIA GPU; nvidia-smi lists none", file=sys.stderr)
        sys.exit(NO_GPU)
    install(options.wheels)
    document = {
        "schema": "edgeseg.gpu-probe/1",
        **circumstances(),
        "network": options.run.name,
        "adapters": {name: try_adapter(name) for name in ADAPTERS},
    }
    with tempfile.TemporaryDirectory() as folder:
        document["engines"] = list(probe(options, Path(folder), document["adapters"]))
    write_json(options.out / "probe.json", document)
    page = markdown(document)
    write_atomic(options.out / "probe.md", page)
    print(page)


def install(wheels: Path | None) -> None:
    """Install what is not there yet, from ``wheels`` or from the package index."""
    wanted = {"tensorrt_rtx": "tensorrt-rtx", "cuda": "cuda-python", "pycuda": "pycuda"}
    source = [] if wheels is None else ["--no-index", "--find-links", str(joined(wheels))]
    for module, name in wanted.items():
        if importlib.util.find_spec(module) is None:
            # pycuda compiles with the machine's nvcc; where that fails, its rows say so.
            command = [sys.executable, "-m", "pip", "install", "--quiet", *source, name]
            subprocess.run(command, check=name != "pycuda")


def joined(wheels: Path) -> Path:
    """The folder itself, wheels that lie there in pieces put together."""
    for first in sorted(wheels.glob("*.whl.part0")):
        whole = first.with_suffix("")
        with whole.open("wb") as stream:
            for number in itertools.count():
                piece = first.with_suffix(f".part{number}")
                if not piece.exists():
                    break
                stream.write(piece.read_bytes())
    return wheels


def try_adapter(name: str) -> dict[str, Any]:
    """Copy there and back, once plainly and once as a graph, and time it with events."""
    try:
        cuda = open_cuda(name)
        with cuda.current(), DeviceMemory(cuda) as memory:
            outcome = _round_trip(cuda, memory)
        return {"facts": asdict(cuda.facts)} | outcome
    except EdgesegError as error:
        return {"error": str(error)}


def _round_trip(cuda: Cuda, memory: DeviceMemory) -> dict[str, Any]:
    count = 1 << 20
    source, target = memory.pinned((count,), np.float32), memory.pinned((count,), np.float32)
    stream, there = memory.stream(), memory.device(source.array.nbytes)
    start, end = memory.event(), memory.event()

    def queue() -> None:
        cuda.copy_in(there, source.address, source.array.nbytes, stream)
        cuda.copy_out(target.address, there, source.array.nbytes, stream)

    def arrived(value: int) -> bool:
        cuda.synchronize(stream)
        return bool((target.array == value).all())

    source.array[:] = 1
    cuda.record(start, stream)
    queue()
    cuda.record(end, stream)
    copied, copy_ms = arrived(1), cuda.elapsed_ms(start, end)
    cuda.begin_capture(stream)
    queue()
    graph = cuda.end_capture(stream)
    source.array[:] = 2
    untouched = arrived(1)  # A capture runs nothing.
    cuda.launch(graph, stream)
    replayed = arrived(2)
    cuda.destroy_graph(graph)
    return {"copied": copied, "copy_ms": copy_ms, "graph": untouched and replayed}


def probe(options: argparse.Namespace, folder: Path, adapters: Any) -> Iterator[dict[str, Any]]:
    """A row for each precision and target, whatever came of it."""
    known = [found["facts"] for found in adapters.values() if "facts" in found]
    own = "sm_{}{}".format(*known[0]["compute_capability"]) if known else None
    for precision, target in itertools.product(COMPILED_FROM, dict.fromkeys((None, own))):
        run = folder / f"{precision}-{target}"
        shutil.copytree(options.run, run)
        row: dict[str, Any] = {"precision": precision, "target": target}
        plan = PlanOptions(targets=(target,) if target else ())
        try:
            result = build(
                BuildConfig(
                    onnx=run / "model.onnx",
                    precision=precision,
                    runtime="tensorrt-rtx",
                    plan=plan,
                    min_agreement=0,
                )
            )
        except EdgesegError as error:
            yield row | {"build_error": str(error)}
            continue
        row |= {"runtime_version": result.sidecar.runtime_version}
        yield row | {"runs": run_all(result.engine, run / COMPILED_FROM[precision], options)}


def run_all(path: Path, graph: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One engine through every adapter, with CUDA graph and without, timed in turns."""
    rows: list[dict[str, Any]] = []
    running: list[tuple[dict[str, Any], TensorRtEngine]] = []
    with ExitStack() as stack:
        for adapter, replay in itertools.product(ADAPTERS, (True, False)):
            row: dict[str, Any] = {"adapter": adapter, "cuda_graph": replay}
            rows.append(row)
            try:
                began = time.perf_counter()
                engine = stack.enter_context(open_plan(path, cuda=open_cuda(adapter), graph=replay))
                engine.warm_up()
                row["seconds_to_first_result"] = time.perf_counter() - began
                batches = list(inputs(engine, options.pictures))
                row["agreement_same_graph"] = agreement(engine, graph, batches)
                row["agreement_fp32"] = agreement(engine, path.with_name("model.onnx"), batches)
                running.append((row, engine))
            except EdgesegError as error:
                row["error"] = str(error)
        for row, milliseconds in latencies(running, options):
            row["infer_ms_p50"] = milliseconds
    return rows


def inputs(engine: TensorRtEngine, pictures: Path) -> Iterator[NDArray[np.float32]]:
    """Real pictures as the network takes them, batches of what it takes."""
    for path in sorted(pictures.iterdir())[:16]:
        tensor = preprocess(load_image(path), engine.card.input)
        yield np.repeat(tensor[np.newaxis], engine.capabilities.batch or 1, axis=0)


def agreement(engine: TensorRtEngine, network: Path, batches: Batches) -> float:
    """Share of pixels that ONNX Runtime labels as the engine does."""
    with open_engine(network) as reference:
        same = [float((engine.infer(b) == reference.infer(b)).mean()) for b in batches]
    return statistics.mean(same)


def latencies(
    running: Sequence[tuple[dict[str, Any], TensorRtEngine]], options: argparse.Namespace
) -> list[tuple[dict[str, Any], float]]:
    """Median over blocks of a block's median, the engines in a new random order each round."""
    blocks: list[list[float]] = [[] for _ in running]
    zeros = [
        np.zeros((e.capabilities.batch or 1, *e.card.input.shape), np.float32) for _, e in running
    ]
    for _, place in turns(range(len(running)), options.rounds):
        calls = []
        for _ in range(options.calls + 1):
            began = time.perf_counter_ns()
            running[place][1].infer(zeros[place])
            calls.append((time.perf_counter_ns() - began) / 1e6)
        blocks[place].append(statistics.median(calls[1:]))
    return [(row, statistics.median(b)) for (row, _), b in zip(running, blocks, strict=True)]


def markdown(document: dict[str, Any]) -> str:
    """The page: the machine, the adapters, a row for each run of each engine."""
    info = document["machine"]
    lines = [
        "# TensorRT-RTX on this GPU",
        f"{document['created']} · {', '.join(gpu['name'] for gpu in info['gpus'])} · {info['cpu']}",
    ]
    for name, found in document["adapters"].items():
        said = found.get("error") or (
            f"copies {'right' if found['copied'] else 'WRONG'}, "
            f"graph {'right' if found['graph'] else 'WRONG'}"
        )
        lines.append(f"- {name}: {said}")
    names = ("Precision", "Target", "CUDA", "Graph", "Same graph", "FP32", "infer, ms", "Problem")
    columns = tuple(Column(name, number=name in names[4:7]) for name in names)
    lines.append(render_markdown(Table(columns, tuple(_rows(document["engines"])))))
    return "\n\n".join(lines)


def _rows(engines: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for engine in engines:
        head = (engine["precision"], engine["target"] or "none")
        if "build_error" in engine:
            yield (*head, *["–"] * 5, engine["build_error"])
        for run in engine.get("runs", ()):
            same, fp32, ms = (
                f"{run[key]:.4f}" if key in run else "–"
                for key in ("agreement_same_graph", "agreement_fp32", "infer_ms_p50")
            )
            replay = "yes" if run["cuda_graph"] else "no"
            yield (*head, run["adapter"], replay, same, fp32, ms, run.get("error", ""))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("run", type=Path, help="folder with model.onnx and model.ranges.json")
    parser.add_argument("--wheels", type=Path, help="folder of wheels instead of the index")
    parser.add_argument(
        "--pictures", type=Path, default=bundled_sample() / "val" / "images", help="to compare on"
    )
    parser.add_argument("--rounds", type=int, default=30, help="blocks an engine (default 30)")
    parser.add_argument("--calls", type=int, default=50, help="calls a block (default 50)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the result")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
