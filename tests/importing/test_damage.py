"""Damaged networks end in an error of ours or are imported; nothing else.

EDGESEG_FUZZ=1000 EDGESEG_FUZZ_FROM=3000 pytest tests/importing/test_damage.py
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from foreign import NAMES, Foreign
from fuzzing import damaged_bytes

from edgeseg.errors import CorruptArtifact, EdgesegError
from edgeseg.importing import ImportConfig, import_network

COUNT = int(os.environ.get("EDGESEG_FUZZ", "300"))
FIRST = int(os.environ.get("EDGESEG_FUZZ_FROM", "0"))
GRAPHS = (
    Foreign("two", layout="nhwc"),
    Foreign("binary", dtype="uint8", normalise="none"),
    Foreign("quarter", opset=11, batch="N"),
    Foreign("int64-channel", dtype="float16", open_size=True),
)
OPERATORS = (
    "Conv", "Relu", "ArgMax", "Identity", "Softmax", "Sigmoid", "NonZero", "Shape", "Resize",
    "Loop", "If", "Constant", "Cast", "Concat", "MatMul", "Flatten", "",
)  # fmt: skip

Mutation = Callable[[onnx.ModelProto, random.Random], None]


def any_node(model: onnx.ModelProto, chance: random.Random) -> onnx.NodeProto:
    return chance.choice(list(model.graph.node) or [onnx.NodeProto()])


def drop(model: onnx.ModelProto, chance: random.Random) -> None:
    part = chance.choice([model.graph.node, model.graph.initializer, model.graph.output])
    if part:
        del part[chance.randrange(len(part))]


def rewire(model: onnx.ModelProto, chance: random.Random) -> None:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = any_node(model, chance)
    target = chance.choice([node.input, node.output])
    if target and names:
        target[chance.randrange(len(target))] = chance.choice([*names, "", "image", "labels"])


def operator(model: onnx.ModelProto, chance: random.Random) -> None:
    any_node(model, chance).op_type = chance.choice(OPERATORS)


def shape(model: onnx.ModelProto, chance: random.Random) -> None:
    value = chance.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    if dims:
        dims[chance.randrange(len(dims))].dim_value = chance.choice([0, -1, 1, 3, 4, 2**31, 7])


def element(model: onnx.ModelProto, chance: random.Random) -> None:
    values = [*model.graph.input, *model.graph.output, *model.graph.initializer]
    value = chance.choice(values)
    kind = chance.randrange(0, 24)
    if isinstance(value, onnx.TensorProto):
        value.data_type = kind
    else:
        value.type.tensor_type.elem_type = kind


def attribute(model: onnx.ModelProto, chance: random.Random) -> None:
    node = any_node(model, chance)
    for each in node.attribute:
        each.i = chance.choice([-5, -1, 0, 1, 9, 2**40])
        for place in range(len(each.ints)):
            each.ints[place] = chance.choice([-1, 0, 1, 2, 3, 2**33])


def weight(model: onnx.ModelProto, chance: random.Random) -> None:
    if model.graph.initializer:
        tensor = chance.choice(list(model.graph.initializer))
        if tensor.dims:
            tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice([0, 1, -1, 2**31, 5])


MUTATIONS: tuple[Mutation, ...] = (drop, rewire, operator, shape, element, attribute, weight)


def damaged(seed: int) -> bytes:
    """A damaged network, the same for one seed."""
    chance = random.Random(seed)
    model = chance.choice(GRAPHS).model()
    if chance.random() < 0.25:
        return damaged_bytes(model.SerializeToString(), chance)
    for _ in range(chance.randint(1, 3)):
        chance.choice(MUTATIONS)(model, chance)
    return model.SerializeToString()


def test_a_cycle_is_told(tmp_path: Path) -> None:
    model = Foreign().model()
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    path = tmp_path / "theirs.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CorruptArtifact, match="depends on its own output"):
        import_network(path, tmp_path / "run", ImportConfig(classes=",".join(NAMES)))


def test_damaged_networks_end_in_our_errors(tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    outcomes: dict[str, int] = {}
    codes: set[int] = set()
    for seed in range(FIRST, FIRST + COUNT):
        path.write_bytes(damaged(seed))
        config = ImportConfig(classes=",".join(NAMES if seed % 2 else NAMES[:2]), size=(48, 64))
        try:
            import_network(path, tmp_path / "run", config, overwrite=True)
            outcome = "imported"
        except EdgesegError as error:
            outcome = type(error).__name__
            codes.add(error.exit_code)
        except Exception as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert len(outcomes) >= 3, outcomes
    assert sum(outcomes.values()) == COUNT
    assert codes <= {2, 3, 6}
