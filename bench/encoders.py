"""INT8 of unet-lite with encoders of timm: operators, agreement with FP32 and speed.

    python bench/encoders.py [NAME…] [--out FILE]

Each network has random weights, batch norms with the statistics of a few of the bundled pictures,
and scores fitted to their masks, so that its labels are more than ties. It is exported at 480×352
and built in INT8 for each runtime that is installed. Engines of TensorRT-RTX are built but not run;
their agreement is that of the graph they are compiled from. Times are CPU time of one thread in
ONNX Runtime, FP32 and INT8 in turns. Rows of an earlier run are kept.
"""

import importlib.util
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from harness import (
    circumstances,
    command_line,
    errors_as_exit_codes,
    say,
    thread_milliseconds,
    write_json,
)
from torch import Tensor, nn
from torch.nn.functional import interpolate as resize

from edgeseg.building import BuildConfig, EngineRuntime, build
from edgeseg.data.folders import bundled_sample, load_sample, read_split
from edgeseg.export.network import export_module
from edgeseg.models import build as build_network
from edgeseg.ops.preprocess import preprocess
from edgeseg.options.training import TrainConfig
from edgeseg.precision.calibration import collect
from edgeseg.precision.graph import work
from edgeseg.precision.ranges import measure_ranges
from edgeseg.training.setup import make_card

RESULTS = Path(__file__).with_name("results") / "encoders.json"
SIZE = (352, 480)
ENCODERS = (
    *("none", "resnet18", "mobilenetv2_100", "mobilenetv4_conv_small", "efficientnet_lite0"),
    *("regnetx_002", "mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0"),
)
"""``none`` is unet-lite with a first convolution of stride 2, whose decoder is the same."""
RUNTIMES: dict[EngineRuntime, str] = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt-rtx": "tensorrt_rtx",
}
ROUNDS = 12
PICTURES = 4


def measure(encoder: str, run: Path) -> dict[str, Any]:
    """Make, export, build and time one network."""
    options = {"stem_stride": 2} if encoder == "none" else {"encoder": encoder}
    config = TrainConfig(bundled_sample(), run, options=dict(options), size=SIZE)
    train = read_split(config.data, "train")
    card = make_card(config, train.classes)
    torch.manual_seed(0)
    model = build_network(card.arch, len(card.classes), card.input.channels, **card.options)
    samples = [load_sample(sample, train.classes) for sample in train.samples[:PICTURES]]
    pictures = torch.from_numpy(np.stack([preprocess(image, card.input) for image, _ in samples]))
    settle(model, pictures, [torch.from_numpy(mask) for _, mask in samples])
    network = run / "model.onnx"
    export_module(model, card, network)
    collect(config.data / "train" / "images", run / "manifest.json", count=PICTURES)
    measure_ranges(network, run / "manifest.json").save(run / "model.ranges.json")
    graph = onnx.load(network)
    row: dict[str, Any] = {
        "encoder": encoder,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflop": round(2 * sum(node.macs for node in work(graph)) / 1e9, 3),
        "operators": Counter(node.op_type for node in graph.graph.node),
        "agreement": {},
    }
    for runtime, library in RUNTIMES.items():
        if importlib.util.find_spec(library) is not None:
            made = build(BuildConfig(network, "int8", runtime, min_agreement=0))
            assert made.sidecar.gate is not None
            assert made.sidecar.precision is not None
            row["agreement"][runtime] = round(made.sidecar.gate.value, 5)
            row["int8_share"] = round(made.sidecar.precision.low_precision_share, 4)
            row["kept"] = made.sidecar.precision.kept
    times = thread_milliseconds({"fp32": network, "int8": run / "model.int8.onnx"}, ROUNDS)
    row |= {f"{name}_ms": value for name, value in times.items()}
    return row | {"floating": floating(run / "model.int8.onnx")}


def settle(model: nn.Module, pictures: Tensor, masks: Sequence[Tensor]) -> None:
    """Give the batch norms their statistics, and fit the scores to masks by least squares."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # a mean over all pictures
    head = model.get_submodule("head")
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.train()(pictures)
        model.eval()(pictures)
        features = seen[-1]
        small = [resize(mask[None, None].float(), features.shape[-2:]) for mask in masks]
        points = features.movedim(1, -1).flatten(0, 2)
        points = torch.cat([points, torch.ones(len(points), 1)], dim=1)
        target = 2 * torch.cat(small).flatten() - 1
        solved = torch.linalg.lstsq(points, target[:, None]).solution[:, 0]
        both = torch.stack([-solved, solved])
        head.get_parameter("weight").copy_(both[:, :-1, None, None])
        head.get_parameter("bias").copy_(both[:, -1])
    hook.remove()


def floating(path: Path) -> Counter[str]:
    """Operators that ONNX Runtime leaves in floating point after it fused an INT8 network."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "fused.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    kinds = Counter(node.op_type for node in nodes if not node.op_type.startswith("QLinear"))
    for name in ("QuantizeLinear", "DequantizeLinear", "MaxPool", "ArgMax", "Cast"):
        kinds.pop(name, None)
    return kinds


def main() -> None:
    """Measure the networks that the document lacks."""
    parser = command_line(__doc__)
    parser.add_argument("names", nargs="*", default=ENCODERS, help="encoders (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows = {}
    if options.out.exists():
        rows = {row["encoder"]: row for row in json.loads(options.out.read_text())["rows"]}
    with errors_as_exit_codes():
        for name in options.names:
            if name not in rows:
                with tempfile.TemporaryDirectory() as folder:
                    rows[name] = measure(name, Path(folder) / "run")
                say(f"{name}: {rows[name]}")
                order = [rows[each] for each in (*ENCODERS, *rows) if each in rows]
                unique = list({row["encoder"]: row for row in order}.values())
                write_json(options.out, {**circumstances(), "size": SIZE, "rows": unique})


if __name__ == "__main__":
    main()
