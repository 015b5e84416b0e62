from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from edgeseg.engines.tensorrt import PlanOptions, build_engine
from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.precision.graph import serialize

Maker = Callable[..., ModelProto]


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def test_builds_are_silent_and_byte_identical(
    trt: Any, brightest: Maker, capfd: pytest.CaptureFixture[str]
) -> None:
    data = serialize(brightest())
    first = build_engine(data, PlanOptions())
    assert first.data[:4] == b"vtrt"
    assert first.data == build_engine(data, PlanOptions(), trt=trt).data
    assert first.version == trt.__version__
    assert first.options["batch"] == 1
    assert capfd.readouterr() == ("", "")


def test_targets_change_the_engine_and_unknown_ones_are_listed(trt: Any, brightest: Maker) -> None:
    data = serialize(brightest())
    one = build_engine(data, PlanOptions(targets=("sm_86",)))
    two = build_engine(data, PlanOptions(targets=("sm_86", "sm_120")))
    assert one.data != two.data
    with pytest.raises(UsageError, match=r"cannot build for sm_87; it can for .*sm_120.*sm_86"):
        build_engine(data, PlanOptions(targets=("sm_86", "sm_87")))


def test_a_node_that_it_does_not_take_is_named(
    trt: Any, brightest: Maker, capfd: pytest.CaptureFixture[str]
) -> None:
    model = brightest()
    odd = helper.make_node(
        "CenterCropPad", ["image", "shape"], ["cropped"], "the_crop", axes=[2, 3]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([16, 24]), "shape"))
    model.graph.node.insert(0, odd)
    model.graph.node[1].input[0] = "cropped"
    with pytest.raises(MismatchedArtifact, match="does not take node 'the_crop'") as caught:
        build_engine(serialize(model), PlanOptions())
    assert "--runtime onnxruntime" in str(caught.value.hint)
    assert capfd.readouterr() == ("", "")
