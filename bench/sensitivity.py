"""Plant a harmful layer in a trained network and check that it is found and fixed.

    python bench/sensitivity.py runs/nuclei --data DIR --calibrate-from DIR/train/images

One channel between two convolutions is made 2**12 times smaller, and the weights that read it
as much larger: in FP32 the network stays what it was, while the steps of INT8 become so wide
that all other weights of the reading layer round to zero. Then ``build --int8`` must refuse,
``sensitivity`` must name that layer, and ``build --int8 --auto-mixed`` must keep it and pass.
"""

import argparse
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import circumstances, command_line, write_json
from onnx import ModelProto, NodeProto, numpy_helper

from edgeseg.artifacts import sidecar
from edgeseg.artifacts.files import sha256_file, write_atomic
from edgeseg.building import BuildConfig, build, measure_sensitivity
from edgeseg.console import progress_bar
from edgeseg.data.folders import list_images, load_image, read_split
from edgeseg.engines import open_engine
from edgeseg.errors import AccuracyGateError, EdgesegError
from edgeseg.evaluation import agreement, evaluate
from edgeseg.precision.calibration import collect
from edgeseg.precision.graph import consumers, load_model, serialize
from edgeseg.precision.plots import save_sensitivity
from edgeseg.precision.ranges import measure_ranges

RESULTS = Path(__file__).with_name("results") / "sensitivity"
FACTOR = 2.0**12


@dataclass(frozen=True)
class Pair:
    """Two convolutions with nothing but a ReLU between them."""

    before: NodeProto
    after: NodeProto


def main() -> None:
    """Plant, build, rank, hint, and write what came out."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / options.run.name
        run.mkdir()
        shutil.copy(options.run / "model.onnx", run)
        shutil.copy(options.run / "model.onnx.json", run)
        document = experiment(run, options)
        RESULTS.mkdir(parents=True, exist_ok=True)
        shutil.copy(run / "model.int8.mixed.png", RESULTS / "mixed.png")
    layers = document["sensitivity"]["layers"]
    save_sensitivity(
        RESULTS / "layers.png", layers, metric=document["sensitivity"]["metric"], precision="int8"
    )
    write_json(RESULTS / "planted.json", document)
    print(json.dumps({key: document[key] for key in ("planted", "refused", "mixed")}, indent=2))


def experiment(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All steps on the network in ``run``, as JSON types."""
    network = run / "model.onnx"
    split = read_split(options.data, "val")
    with open_engine(network) as engine:
        clean = evaluate(engine, split, progress_bar).mean_iou
    original = run / "original.onnx"
    shutil.copy(network, original)
    layer = plant(network, options.layer)
    images = map(load_image, [sample.image for sample in split])
    with open_engine(original) as before, open_engine(network) as after:
        same = agreement(before, after, images)
    manifest = run / "calib" / "manifest.json"
    count = len(list_images(options.calibrate_from))
    collect(options.calibrate_from, manifest, count=min(64, count))
    measure_ranges(network, manifest, track=progress_bar).save(run / "model.ranges.json")
    config = BuildConfig(network, "int8", "onnxruntime", data=options.data)
    try:
        build(config, progress_bar)
    except AccuracyGateError as error:
        refused = {"message": error.message.splitlines()[0], "layers": error.layers}
    else:
        raise EdgesegError("the planted layer did no harm", hint="plant it elsewhere: --layer")
    found = measure_sensitivity(config, track=progress_bar).to_dict()
    mixed = build(BuildConfig(**{**vars(config), "auto_mixed": True}), progress_bar).sidecar
    assert mixed.gate is not None
    assert mixed.precision is not None
    return {
        "schema": "edgeseg.sensitivity/1",
        **circumstances(),
        "network": options.run.name,
        "data": options.data.name,
        "planted": {
            "layer": layer,
            "factor": FACTOR,
            "mean_iou_before": clean,
            "same_labels_in_fp32": same,
        },
        "refused": refused,
        "sensitivity": found | {"network": "model.onnx"},
        "mixed": {
            "kept": str(mixed.build_options.get("auto_mixed", "")).split(),
            "low_precision_share": mixed.precision.low_precision_share,
            "gate": mixed.gate.model_dump(),
        },
    }


def plant(network: Path, layer: str | None = None) -> str:
    """Give one layer weights that INT8 cannot bear, in place; the name of that layer.

    Args:
        network: ``model.onnx`` with its side-car, which is brought up to date.
        layer: The layer that reads the shrunken channel; by default that in the middle.
    """
    model = load_model(network)
    pairs = list(_pairs(model))
    chosen = [pair for pair in pairs if pair.after.name == layer]
    pair = chosen[0] if chosen else pairs[len(pairs) // 2]
    _shift(model, pair)
    write_atomic(network, serialize(model))
    made = sidecar.read(network)
    assert made is not None
    changed = {"artifact_sha256": sha256_file(network), "artifact_bytes": network.stat().st_size}
    made.model_copy(update=changed).save(sidecar.sidecar_path(network))
    return pair.after.name


def _pairs(model: ModelProto) -> Iterator[Pair]:
    readers = consumers(model)
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        for relu, after in itertools.product(readers.get(node.output[0], ()), model.graph.node):
            alone = len(readers.get(relu.output[0], ())) == len(readers[node.output[0]]) == 1
            reads = after.op_type == "Conv" and after.input[0] == relu.output[0]
            if relu.op_type == "Relu" and alone and reads:
                yield Pair(node, after)


def _shift(model: ModelProto, pair: Pair) -> None:
    """Scale one channel by a power of two there and back: no bit of FP32 is rounded."""
    weights = {weight.name: weight for weight in model.graph.initializer}
    before, after = pair.before.input[1], pair.after.input[1]
    first, second = (numpy_helper.to_array(weights[name]).copy() for name in (before, after))
    # The channel that says least: it alone is lost, where the layer that gives it is rounded.
    said = np.abs(first).sum(axis=(1, 2, 3)) * np.abs(second).sum(axis=(0, 2, 3))
    channel = int(np.argmin(said))
    first[channel] /= FACTOR
    second[:, channel] *= FACTOR
    weights[before].CopyFrom(numpy_helper.from_array(first, before))
    weights[after].CopyFrom(numpy_helper.from_array(second, after))
    if len(pair.before.input) > 2:
        bias = pair.before.input[2]
        value = numpy_helper.to_array(weights[bias]).copy()
        value[channel] /= FACTOR
        weights[bias].CopyFrom(numpy_helper.from_array(value, bias))


def _options() -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("run", type=Path, help="run folder with model.onnx and its side-car file")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--calibrate-from", type=Path, required=True)
    parser.add_argument(
        "--layer", help="layer that reads the scaled channel; default: the middle one"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
