"""The real TensorRT-RTX: architecture × precision × batch and size fixed or open × target.

An export a network, opened or fixed afterwards by name alone, so that the matrix costs builds
and not exports. Forms and targets are a Latin square over the precisions: every two of the three
meet in each architecture, not every three. FCN-16s has no operator that the other two lack.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from onnx import ModelProto
from torch import nn

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard, Precision
from edgeseg.engines.tensorrt import PlanOptions, build_engine
from edgeseg.export.network import trace
from edgeseg.export.open_size import with_open_size
from edgeseg.models import build
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import at_card_size, serialize, typed, work
from edgeseg.precision.int8 import to_int8
from edgeseg.precision.ranges import activations

ARCHITECTURES: dict[str, dict[str, bool | int | float | str]] = {
    "unet-lite": {"width": 8, "depth": 2},
    "unet": {"width": 8, "depth": 2},
    "fcn32s": {"fc_width": 16},
    "fcn8s": {"fc_width": 16},
}
TARGETS = ((), ("sm_86",), ("sm_89", "sm_120"))
SIZE = 64


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def network(request: pytest.FixtureRequest) -> ModelProto:
    """Batch and size open; seeded weights."""
    torch.manual_seed(0)
    options = ARCHITECTURES[request.param]
    model = build(request.param, 3, **options)
    for module in model.modules():
        # Score layers start at zero.
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, 0, 0.1)
    card = ModelCard(
        name="t",
        arch=request.param,
        options=options,
        classes=ClassMap(names=("a", "b", "c")),
        input=InputSpec(height=SIZE, width=SIZE),
    )
    return trace(model.eval(), with_open_size(model, card), dynamic_batch=True)


def reduced(network: ModelProto, precision: Precision) -> ModelProto:
    if precision == "fp32":
        return network
    if precision == "fp16":
        return to_fp16(network)
    # Any ranges will do: what is asked here is whether TensorRT takes the graph.
    names = activations(typed(at_card_size(network), "the network"))
    return to_int8(network, dict.fromkeys(names, (-4.0, 4.0)), flavour="tensorrt")


def with_fixed(model: ModelProto, *, batch: bool, size: bool) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    for value in (*copy.graph.input, *copy.graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, number in ((dims[0], 1 if batch else 0), *((d, SIZE * size) for d in dims[-2:])):
            if number:
                dim.dim_value = number
    return copy


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_network_builds_in_every_form(
    trt: Any, network: ModelProto, precision: Precision
) -> None:
    model = reduced(network, precision)
    shares = {node.node: node.precision for node in work(model)}
    assert precision in shares.values()
    forms: dict[str, tuple[ModelProto, dict[str, Any]]] = {
        "fixed": (with_fixed(model, batch=True, size=True), {}),
        "batch": (with_fixed(model, batch=False, size=True), {"batch": (1, 2, 4)}),
        "size": (
            with_fixed(model, batch=True, size=False),
            {"sizes": ((SIZE, SIZE), (SIZE, 2 * SIZE), (2 * SIZE, 2 * SIZE))},
        ),
    }
    turn = ("fp32", "fp16", "int8").index(precision)
    for place, (form, (graph, options)) in enumerate(forms.items()):
        targets = TARGETS[(place + turn) % 3]
        plan = build_engine(serialize(graph), PlanOptions(targets=targets, **options), trt=trt)
        assert plan.data[:4] == b"vtrt", (form, targets)
        assert plan.precisions == shares, (form, targets)
        assert plan.table.source == "network"
        assert {layer.name for layer in plan.table.layers} >= set(shares)
