"""The real TensorRT-RTX: architecture × precision × batch and size fixed or open × target.

An export a network, opened or fixed afterwards by name alone, so that the matrix costs builds
and not exports. Each architecture builds once in each precision; forms and targets are Latin
squares over these, so that every two of the four meet. FCN-16s and FCN-32s have no operator
that FCN-8s lacks.
"""

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from cards import model_card
from onnx import ModelProto
from torch import nn

from edgeseg.artifacts.card import Precision
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
    "fcn8s": {"fc_width": 16},
}
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
FORMS = ("fixed", "batch", "size")
TARGETS = ((), ("sm_86",), ("sm_89", "sm_120"))
CASES = [
    (arch, precision, FORMS[(row + column) % 3], TARGETS[(row + 2 * column) % 3])
    for row, arch in enumerate(ARCHITECTURES)
    for column, precision in enumerate(PRECISIONS)
]
SIZE = 64


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@cache
def network(arch: str) -> ModelProto:
    """Batch and size open; seeded weights."""
    torch.manual_seed(0)
    options = ARCHITECTURES[arch]
    model = build(arch, 3, **options)
    for module in model.modules():
        # Score layers start at zero.
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, 0, 0.1)
    card = model_card("abc", SIZE, SIZE, arch=arch, options=options)
    return trace(model.eval(), with_open_size(model, card), dynamic_batch=True)


def reduced(network: ModelProto, precision: Precision) -> ModelProto:
    if precision == "fp32":
        return network
    if precision == "fp16":
        return to_fp16(network)
    # Any ranges will do: what is asked here is whether TensorRT takes the graph.
    names = activations(typed(at_card_size(network), "the network"))
    return to_int8(network, dict.fromkeys(names, (-4.0, 4.0)), graph_format="tensorrt")


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


@pytest.mark.parametrize(("arch", "precision", "form", "targets"), CASES)
def test_every_network_builds_in_every_form(
    trt: Any, arch: str, precision: Precision, form: str, targets: Sequence[str]
) -> None:
    model = reduced(network(arch), precision)
    shares = {node.node: node.precision for node in work(model)}
    assert precision in shares.values()
    options: dict[str, dict[str, Any]] = {
        "fixed": {},
        "batch": {"batch": (1, 2, 4)},
        "size": {"sizes": ((SIZE, SIZE), (SIZE, 2 * SIZE), (2 * SIZE, 2 * SIZE))},
    }
    graph = with_fixed(model, batch=form != "batch", size=form != "size")
    plan = build_engine(serialize(graph), PlanOptions(targets=targets, **options[form]), trt=trt)
    assert plan.data[:4] == b"vtrt"
    assert plan.precisions == shares
    assert plan.table.source == "network"
    assert {layer.name for layer in plan.table.layers} >= set(shares)


def test_every_two_of_them_meet() -> None:
    axes = (tuple(ARCHITECTURES), PRECISIONS, FORMS, TARGETS)
    for one, other in itertools.combinations(range(4), 2):
        met = {(case[one], case[other]) for case in CASES}
        assert met == set(itertools.product(axes[one], axes[other]))
