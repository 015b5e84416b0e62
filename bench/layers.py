"""Show where a network spends its time in ONNX Runtime and OpenVINO, by operator and precision.

    python bench/layers.py NETWORK.onnx OUT

Needs ``model.ranges.json`` beside the network. Engines are FP32 in both runtimes, and INT8 placed
for ONNX Runtime and for OpenVINO; OpenVINO runs both. Whole inferences are measured in turns as CPU
time on one thread, which other work on the machine hardly prolongs, and each engine then once more
with its runtime's profiler, of which the shortest time of each kernel counts. ``GOP/s`` counts two
operations for each multiply-accumulate of the convolutions in the engine's precision, over the
time of their kernels; beside it stands the same figure of one large convolution (512 to 512
channels, 3 × 3, on 16 × 16 pixels) in the same runtime. That is no upper limit: its weights exceed
a cache of the second level.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from harness import circumstances, command_line, turns, words, write_json
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgeseg.artifacts.documents import load
from edgeseg.artifacts.files import write_atomic
from edgeseg.engines.openvino import library
from edgeseg.machine import describe, summary
from edgeseg.precision.graph import load_model, work
from edgeseg.precision.int8 import to_int8
from edgeseg.precision.policy import GraphFormat
from edgeseg.precision.ranges import Ranges
from edgeseg.report.tables import Column, Table, render_markdown
from edgeseg.runs import RANGES

ROUNDS, PROFILED, SIDE = 40, 60, 16
INTEGERS = ("u8", "i8", "uint8", "int8")
Run = Callable[[], object]
CONVOLUTIONS = ("Conv", "QLinearConv", "Convolution")


@dataclass(frozen=True)
class Kernel:
    """One kernel of an engine: operator and precision as the runtime names them, milliseconds."""

    operator: str
    precision: str
    ms: float


@dataclass(frozen=True)
class Case:
    """A graph in a runtime."""

    name: str
    runtime: str
    model: ModelProto

    def opened(self, folder: Path) -> Run:
        """A function that runs the network once."""
        open_in = self._onnxruntime if self.runtime == "ONNX Runtime" else self._openvino
        return open_in(folder)[0]

    def kernels(self, folder: Path) -> list[Kernel]:
        """Shortest time of each kernel, by the runtime's profiler."""
        if self.runtime == "ONNX Runtime":
            run, session = self._onnxruntime(folder, profiling=True)
            for _ in range(PROFILED):
                run()
            return list(_onnxruntime_kernels(Path(session.end_profiling())))
        run, (compiled, request) = self._openvino(folder, profiling=True)
        seen: dict[str, list[float]] = {}
        for _ in range(PROFILED):
            run()
            for one in request.profiling_info:
                seen.setdefault(one.node_name, []).append(1e3 * one.real_time.total_seconds())
        return list(_openvino_kernels(compiled, seen))

    def gops(self, integer: bool) -> float:
        """Operations of the convolutions that compute in INT8, or of the others, in 10⁹."""
        return sum(2e-9 * w.macs for w in work(self.model) if (w.precision == "int8") == integer)

    def _onnxruntime(self, folder: Path, *, profiling: bool = False) -> tuple[Run, Any]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_profiling = profiling
        options.profile_file_prefix = str(folder / "profile")
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=providers
        )
        feed = {"image": _picture(self.model)}
        return lambda: session.run(None, feed), session

    def _openvino(self, folder: Path, *, profiling: bool = False) -> tuple[Run, Any]:
        path = folder / "model.onnx"
        onnx.save(self.model, path)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_NUM_THREADS": 1,
            "PERF_COUNT": profiling,
        }
        if not self.gops(integer=True):
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        compiled = library().Core().compile_model(path, "CPU", settings)
        request = compiled.create_infer_request()
        feed = [_picture(self.model)]
        return lambda: request.infer(feed, share_inputs=True), (compiled, request)


def _onnxruntime_kernels(profile: Path) -> Iterator[Kernel]:
    seen: dict[str, list[float]] = {}
    kinds = {}
    for event in json.loads(profile.read_text()):
        name = event["name"]
        if event["cat"] == "Node" and name.endswith("_kernel_time"):
            seen.setdefault(name, []).append(event["dur"] / 1e3)
            read = {kind for value in event["args"]["input_type_shape"] for kind in value}
            integer = read.intersection(INTEGERS)
            kinds[name] = event["args"]["op_name"], "int8" if integer else "fp32"
    for name, times in seen.items():
        yield Kernel(*kinds[name], min(times))


def _openvino_kernels(compiled: Any, seen: dict[str, list[float]]) -> Iterator[Kernel]:
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        precision = facts["runtimePrecision"].astype(str)
        times = seen.get(node.get_friendly_name(), [0.0])
        yield Kernel(
            facts["layerType"].astype(str),
            "int8" if precision in INTEGERS else {"f32": "fp32"}.get(precision, precision),
            min(times),
        )


def _picture(model: ModelProto) -> np.ndarray:
    shape = [dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def large_convolution() -> ModelProto:
    """Three convolutions, of which INT8 keeps the first and the last in floating point."""
    random = np.random.default_rng(0)
    shapes = {"w0": (512, 4, 1, 1), "w1": (512, 512, 3, 3), "w2": (4, 512, 1, 1)}
    weights = [
        numpy_helper.from_array(random.normal(size=s).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["first"], "first"),
        helper.make_node("Conv", ["first", "w1"], ["large"], "large", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["large", "w2"], ["scores"], "scores"),
    ]
    image, scores = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, SIDE, SIDE])
        for name in ("image", "scores")
    )
    graph = helper.make_graph(nodes, "large", [image], [scores], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def peak(runtime: str, precision: str, folder: Path) -> float:
    """GOP/s of the large convolution."""
    model = large_convolution()
    if precision == "int8":
        names = [value for node in model.graph.node for value in (*node.input, *node.output)]
        graph_format: GraphFormat = "openvino" if runtime == "OpenVINO" else "onnxruntime"
        model = to_int8(model, dict.fromkeys(names, (-4.0, 4.0)), graph_format=graph_format)
    case = Case("peak", runtime, model)
    slowest = max(k.ms for k in case.kernels(folder) if k.operator in CONVOLUTIONS)
    return 2 * 9 * 512 * 512 * SIDE**2 / slowest / 1e6


def main() -> int:
    """Measure, and write the document and the page."""
    parser = command_line(__doc__)
    parser.add_argument("network", type=Path)
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    model = load_model(options.network)
    ranges = load(Ranges, options.network.with_name(RANGES)).ranges
    graphs: dict[str, ModelProto] = {"FP32": model}
    for graph_format in ("onnxruntime", "openvino"):
        graphs[f"INT8, placed for {graph_format}"] = to_int8(
            model, ranges, graph_format=graph_format
        )
    cases = [
        Case(f"{runtime}, {name}", runtime, graph)
        for runtime in ("ONNX Runtime", "OpenVINO")
        for name, graph in graphs.items()
        if (runtime, name) != ("ONNX Runtime", "INT8, placed for openvino")
    ]
    with tempfile.TemporaryDirectory() as folder:
        document = measure(cases, options.rounds, Path(folder))
    document["network"] = options.network.parent.name
    document |= circumstances()
    write_json(options.out / f"{document['network']}.json", document)
    write_atomic(options.out / f"{document['network']}.md", page(document))
    print(page(document))
    return 0


def measure(cases: list[Case], rounds: int, folder: Path) -> dict[str, Any]:
    """Whole inferences in turns, then kernels."""
    runs = [case.opened(folder) for case in cases]
    spent: list[list[float]] = [[] for _ in cases]
    for number, place in turns(range(len(cases)), rounds + 2):
        began = time.process_time()
        runs[place]()
        if number >= 2:
            spent[place].append(1e3 * (time.process_time() - began))
    peaks = {
        f"{runtime} {precision}": round(peak(runtime, precision, folder))
        for runtime in ("ONNX Runtime", "OpenVINO")
        for precision in ("fp32", "int8")
    }
    rows = [
        {"name": case.name, "ms": round(statistics.median(times), 2)} | _profile(case, folder)
        for case, times in zip(cases, spent, strict=True)
    ]
    return {"rounds": rounds, "large_convolution_gops": peaks, "engines": rows}


def _profile(case: Case, folder: Path) -> dict[str, Any]:
    kernels = case.kernels(folder)
    total = sum(kernel.ms for kernel in kernels)
    groups: dict[tuple[str, str], list[float]] = {}
    for kernel in kernels:
        if kernel.ms > 0:
            groups.setdefault((kernel.operator, kernel.precision), []).append(kernel.ms)
    integer = any(precision == "int8" for _, precision in groups)
    convolving = sum(
        sum(times)
        for (operator, precision), times in groups.items()
        if operator in CONVOLUTIONS and (precision == "int8") == integer
    )
    return {
        "gops": round(case.gops(integer) / convolving * 1e3),
        "kernels_ms": round(total, 2),
        "operators": [
            {
                "operator": operator,
                "precision": precision,
                "kernels": len(times),
                "ms": round(sum(times), 3),
                "share": round(sum(times) / total, 4),
            }
            for (operator, precision), times in sorted(
                groups.items(), key=lambda group: -sum(group[1])
            )
        ],
    }


def page(document: dict[str, Any]) -> str:
    """Markdown: engines, then the operators of each."""
    first = document["engines"][0]["ms"]
    columns = (
        *words("Engine"),
        Column("Median", "ms"),
        Column("×"),
        Column("Convolutions", "GOP/s"),
    )
    rows = [
        (engine["name"], f"{engine['ms']:.2f}", f"{first / engine['ms']:.2f}", str(engine["gops"]))
        for engine in document["engines"]
    ]
    peaks = ", ".join(
        f"{name} {value} GOP/s" for name, value in document["large_convolution_gops"].items()
    )
    parts = [
        f"# Time by operator: {document['network']}\n\n"
        f"Generated by `python bench/layers.py NETWORK OUT`; do not edit. "
        f"{document['created'][:10]}, "
        f"{summary(describe())}; load at the end: "
        f"{document['load_1min']:.1f}. CPU time on one thread, medians of {document['rounds']} "
        f"inferences in turns; "
        f"× is the speed relative to the first row. Kernels: the shortest of {PROFILED}. "
        f"One large convolution: {peaks}.\n\n",
        render_markdown(Table(columns, tuple(rows))),
    ]
    columns = (*words("Operator", "Precision"), Column("Kernels"), Column("Time", "ms"),
               Column("Share", "%"))  # fmt: skip
    for engine in document["engines"]:
        listed = [row for row in engine["operators"] if row["share"] >= 0.001]
        parts.append(f"\n## {engine['name']}\n\n")
        cells = tuple(
            (row["operator"], row["precision"].upper(), str(row["kernels"]), f"{row['ms']:.2f}",
             f"{100 * row['share']:.1f}")
            for row in listed
        )  # fmt: skip
        parts.append(render_markdown(Table(columns, cells)))
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main())
