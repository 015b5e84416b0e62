"""The build through stand-ins of five versions, on which any name that one lacks raises.

What a stand-in cannot show is what real kernels do with a flag; that each version is asked in
its own words, and refused what it lacks, it can.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import standin
from engines.plans import open_sized
from onnx import ModelProto, helper, numpy_helper

from edgeseg.engines.tensorrt import Implicit, PlanOptions, build_engine
from edgeseg.engines.tensorrt import timing_cache as caches
from edgeseg.errors import MismatchedArtifact, RuntimeMissing, UsageError
from edgeseg.precision.fp16 import to_fp16
from edgeseg.precision.graph import serialize

Maker = Callable[..., ModelProto]

OLD = ("8.6.1", "10.3.0")
NEW = ("10.16.1", "11.4.0", "rtx-1.7.1")
MEASURING = (*OLD, "10.16.1", "11.4.0")
UNCACHED = PlanOptions(timing_cache="none")


@pytest.fixture(params=standin.VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def quantised(model: ModelProto) -> ModelProto:
    """Q/DQ pairs on both operands of the convolution."""
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    pairs = []
    for place, name in enumerate(list(conv.input)):
        q, dq = f"{name}_q", f"{name}_dq"
        pairs.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [q], q))
        pairs.append(helper.make_node("DequantizeLinear", [q, "scale", "zero"], [dq], dq))
        conv.input[place] = dq
    nodes = [*pairs, *(type(conv).FromString(n.SerializeToString()) for n in model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    constants = {"scale": np.array(0.02, np.float32), "zero": np.array(0, np.int8)}
    model.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in constants.items())
    return model


def flags(trt: Any) -> set[str]:
    return {flag.name for (flag,) in standin.called(trt, "IBuilderConfig.set_flag")}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_version_builds_each_precision(version: str, precision: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version)
    reduce = {"fp32": lambda model: model, "fp16": to_fp16, "int8": quantised}[precision]
    plan = build_engine(serialize(reduce(brightest())), UNCACHED, trt=trt)
    assert plan.precisions == {"conv": precision}
    assert plan.version == version.removeprefix("rtx-")
    asked = flags(trt)
    if version in NEW:
        assert not asked, "a strongly typed network knows its precision"
        assert plan.options["typing"] == "strong"
    else:
        wanted = {"fp32": set(), "fp16": {"FP16"}, "int8": {"INT8"}}[precision]
        assert asked == wanted | ({"OBEY_PRECISION_CONSTRAINTS"} if wanted else set())
        assert plan.options["typing"] == "bound"
    assert not standin.called(trt, "IBuilderConfig.int8_calibrator")


def test_networks_are_typed_where_the_version_does_that_completely(
    version: str, brightest: Maker
) -> None:
    trt = standin.tensorrt(version)
    build_engine(serialize(brightest()), UNCACHED, trt=trt)
    ((created,),) = standin.called(trt, "Builder.create_network")
    kinds = trt.NetworkDefinitionCreationFlag
    expected = kinds.STRONGLY_TYPED if version in NEW else kinds.EXPLICIT_BATCH
    assert created == 1 << int(expected)


@pytest.mark.parametrize("version", OLD)
def test_layers_that_the_graph_keeps_are_bound_to_it(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version)
    model = brightest()
    model.graph.node[0].input[0] = "first"
    first = helper.make_node("Conv", ["image", "kernel"], ["first"], "kept", pads=[1] * 4)
    model.graph.node.insert(0, first)
    plan = build_engine(serialize(to_fp16(model, keep=("kept",))), UNCACHED, trt=trt)
    assert plan.precisions == {"kept": "fp32", "conv": "fp16"}
    bound = standin.called(trt, "ILayer.precision")
    assert bound == [(trt.DataType.FLOAT,), (trt.DataType.HALF,)]
    assert standin.called(trt, "ILayer.set_output_type") == [(0, trt.DataType.FLOAT)]


def test_what_no_flag_allows_is_not_built(brightest: Maker) -> None:
    """The stand-in itself: without the flags old versions refuse such a network."""
    trt = standin.tensorrt("10.3.0")
    builder, log = trt.Builder(trt.Logger()), trt.Logger()
    network = builder.create_network(0)
    assert trt.OnnxParser(network, log).parse(serialize(to_fp16(brightest())))
    assert builder.build_serialized_network(network, builder.create_builder_config()) is None


def test_a_precision_that_was_not_bound_is_not_claimed(brightest: Maker) -> None:
    """An INT8 layer without ranges on its tensors runs in FP32, and is said to."""
    trt = standin.tensorrt("8.6.1", dla_cores=1)
    implicit = Implicit({"conv": "int8"}, {"image": (-1.0, 2.0)})
    options = PlanOptions(dla_core=0, timing_cache="none")
    plan = build_engine(serialize(brightest()), options, trt=trt, implicit=implicit)
    assert plan.precisions == {"conv": "fp32"}


def test_settings_reach_the_configuration(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version)
    options = PlanOptions(workspace_mib=64, tf32=False, timing_cache="none")
    plan = build_engine(serialize(brightest()), options, trt=trt)
    pool = trt.MemoryPoolType.WORKSPACE
    assert standin.called(trt, "IBuilderConfig.set_memory_pool_limit") == [(pool, 64 << 20)]
    assert standin.called(trt, "IBuilderConfig.clear_flag") == [(trt.BuilderFlag.TF32,)]
    assert plan.options["workspace_mib"] == 64
    assert plan.options["tf32"] is False


def test_the_optimisation_level_is_set_or_refused(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version)
    options = PlanOptions(optimisation_level=5, timing_cache="none")
    if version.startswith("rtx"):
        with pytest.raises(UsageError, match="same engine at every optimisation level"):
            build_engine(serialize(brightest()), options, trt=trt)
        return
    plan = build_engine(serialize(brightest()), options, trt=trt)
    assert standin.called(trt, "IBuilderConfig.builder_optimization_level") == [(5,)]
    assert plan.options["optimisation_level"] == 5


@pytest.mark.parametrize(
    ("level", "having"), [("ampere+", MEASURING), ("same", ("10.16.1", "11.4.0"))]
)
def test_hardware_compatibility_is_set_or_refused(
    version: str, brightest: Maker, level: Any, having: tuple[str, ...]
) -> None:
    trt = standin.tensorrt(version)
    options = PlanOptions(hardware_compatibility=level, timing_cache="none")
    if version in having:
        plan = build_engine(serialize(brightest()), options, trt=trt)
        assert plan.options["hardware_compatibility"] == level
        assert standin.called(trt, "IBuilderConfig.hardware_compatibility_level")
    else:
        with pytest.raises(UsageError, match=r"hardware compatibility") as caught:
            build_engine(serialize(brightest()), options, trt=trt)
        assert "--target" in str(caught.value.hint) or "it has none, ampere+" in str(caught.value)


def test_targets_are_for_tensorrt_rtx(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version)
    options = PlanOptions(targets=("sm_86", "sm_120"), timing_cache="none")
    if version.startswith("rtx"):
        build_engine(serialize(brightest()), options, trt=trt)
        made = standin.called(trt, "IBuilderConfig.set_compute_capability")
        assert made == [(trt.ComputeCapability.SM86, 0), (trt.ComputeCapability.SM120, 1)]
    else:
        with pytest.raises(UsageError, match="compiles for the GPU of the machine it runs on"):
            build_engine(serialize(brightest()), options, trt=trt)


def test_profiles_of_batch_and_size(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version)
    options = PlanOptions(batch=(1, 2, 4), sizes=((8, 16), (16, 24), (32, 48)), timing_cache="none")
    plan = build_engine(serialize(open_sized(brightest(batch="N"))), options, trt=trt)
    shapes = (1, 3, 8, 16), (2, 3, 16, 24), (4, 3, 32, 48)
    assert standin.called(trt, "IOptimizationProfile.set_shape") == [("image", *shapes)]
    assert plan.options["batch"] == "1:2:4"
    assert plan.options["sizes"] == "16x8:24x16:48x32"


@pytest.mark.parametrize(
    ("options", "batch", "opened", "said"),
    [
        ({"batch": (1, 2, 4)}, 1, False, "takes batches of 1, not 1:2:4"),
        ({"sizes": ((8, 8), (8, 8), (16, 16))}, 1, False, "only takes pictures of 24x16"),
        ({}, 1, True, "an engine has to know which"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(
    version: str, brightest: Maker, options: dict[str, Any], batch: Any, opened: bool, said: str
) -> None:
    model = brightest(batch=batch)
    model = open_sized(model) if opened else model
    with pytest.raises(UsageError, match=said):
        build_engine(
            serialize(model),
            PlanOptions(**options, timing_cache="none"),
            trt=standin.tensorrt(version),
        )


def test_a_refused_node_is_named_as_far_as_the_version_can(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version, refuses=("Conv",))
    name = "number 0" if version == "8.6.1" else "conv"
    with pytest.raises(MismatchedArtifact, match=f"does not take node '{name}'"):
        build_engine(serialize(brightest()), UNCACHED, trt=trt)


def test_a_failed_build_says_why(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version, build_error="out of memory")
    with pytest.raises(MismatchedArtifact, match=r"cannot compile the network: out of memory"):
        build_engine(serialize(brightest()), UNCACHED, trt=trt)


def test_without_a_gpu_tensorrt_says_what_it_needs(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version, gpu=None)
    if version.startswith("rtx"):
        plan = build_engine(serialize(brightest()), UNCACHED, trt=trt)
        assert plan.table.source == "network"
        return
    with pytest.raises(RuntimeMissing, match=r"builds on the GPU that the engine is for.*35"):
        build_engine(serialize(brightest()), UNCACHED, trt=trt)


def test_the_table_is_of_the_engine_where_it_opens(version: str, brightest: Maker) -> None:
    plan = build_engine(serialize(to_fp16(brightest())), UNCACHED, trt=standin.tensorrt(version))
    assert plan.table.source == "engine"
    conv = next(layer for layer in plan.table.layers if layer.name == "conv")
    assert (conv.type, conv.precision, conv.shape) == ("convolution", "fp16", (1, 3, 16, 24))


class Stopped(Exception):
    """What Ctrl-C is to a build."""


def test_progress_rises_to_the_end_and_can_be_called_off(version: str, brightest: Maker) -> None:
    seen: list[int] = []

    def watch(items: Any, description: str, total: int | None = None) -> Any:
        assert (description, total) == ("compiling the engine", 1000)
        for item in items:
            seen.append(item)
            yield item

    def stop(items: Any, description: str, total: int | None = None) -> Any:
        for _ in items:
            raise Stopped
        yield

    trt = standin.tensorrt(version)
    build_engine(serialize(brightest()), UNCACHED, trt=trt, track=watch)
    assert seen == list(range(1000))
    with pytest.raises(Stopped):
        build_engine(serialize(brightest()), UNCACHED, trt=trt, track=stop)


@pytest.mark.parametrize("version", MEASURING)
def test_the_timing_cache_is_kept_per_version_and_gpu(
    version: str, brightest: Maker, cache_folder: Path
) -> None:
    trt = standin.tensorrt(version)
    plan = build_engine(serialize(brightest()), PlanOptions(), trt=trt, gpu="GPU/of mine")
    path = cache_folder / f"tensorrt-{version}-GPU-of-mine.timing"
    assert plan.options["timing_cache"] == str(path)
    first = path.read_bytes()
    assert b"timed: " in first
    again = standin.tensorrt(version)
    build_engine(serialize(brightest()), PlanOptions(), trt=again, gpu="GPU/of mine")
    assert standin.called(again, "IBuilderConfig.create_timing_cache")[0] == (first,)


@pytest.mark.parametrize("version", MEASURING)
@pytest.mark.parametrize("content", [b"", b"garbage", b"foreign"])
def test_a_cache_of_something_else_is_left_aside_with_one_warning(
    version: str, content: bytes, brightest: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mine.timing"
    if content == b"foreign":
        other = standin.tensorrt("8.6.1" if version != "8.6.1" else "10.3.0")
        build_engine(serialize(brightest()), PlanOptions(timing_cache=path), trt=other)
    else:
        path.write_bytes(content)
    trt = standin.tensorrt(version)
    with caplog.at_level(logging.WARNING, "edgeseg"):
        build_engine(serialize(brightest()), PlanOptions(timing_cache=path), trt=trt)
    assert [r.message for r in caplog.records if "measuring again" in r.message] == [
        f"the timing cache {path} is not of TensorRT {version} on this GPU, or damaged: "
        "measuring again"
    ]
    assert trt._said.encode() in path.read_bytes(), "and is replaced by one that is"


def test_an_engine_is_kept_if_its_timing_cache_cannot_be_saved(
    brightest: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    options = PlanOptions(timing_cache=tmp_path / "file/mine.timing")
    plan = build_engine(serialize(brightest()), options, trt=standin.tensorrt("10.3.0"))
    assert plan.data
    assert "mine.timing is not saved" in caplog.text


def test_two_builds_join_what_they_measured(brightest: Maker, tmp_path: Path) -> None:
    path = tmp_path / "shared.timing"
    trt = standin.tensorrt("10.3.0")
    builder = trt.Builder(trt.Logger())
    made = []
    for word in (b"one", b"two"):
        config = builder.create_builder_config()
        cache = caches.TimingCache(trt, config, path)
        cache.read()
        config.get_timing_cache()._entries = word
        made.append(cache)
    for cache in made:
        cache.write()
    assert b"one" in path.read_bytes()
    assert b"two" in path.read_bytes()


ON_DLA = PlanOptions(dla_core=0, timing_cache="none")


@pytest.mark.parametrize("version", OLD)
def test_a_dla_of_old_takes_ranges_in_place_of_q_dq(
    version: str, brightest: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    trt = standin.tensorrt(version, dla_cores=2)
    implicit = Implicit({"conv": "int8"}, {"image": (-1.0, 2.5), "scores": (-4.0, 3.0)})
    with caplog.at_level(logging.WARNING, "edgeseg"):
        plan = build_engine(serialize(brightest()), ON_DLA, trt=trt, implicit=implicit)
    assert plan.precisions == {"conv": "int8"}
    ranges = standin.called(trt, "ITensor.set_dynamic_range")
    assert ranges == [(-2.5, 2.5), (-4.0, 4.0)], "symmetric, by the larger end"
    assert flags(trt) == {"INT8", "FP16", "GPU_FALLBACK", "PREFER_PRECISION_CONSTRAINTS"}
    assert standin.called(trt, "IBuilderConfig.DLA_core") == [(0,)]
    assert plan.options["layers_on_gpu"] == 2
    assert "the DLA leaves 2 of 3 layers to the GPU: argmax, cast" in caplog.text


@pytest.mark.parametrize("version", OLD)
def test_what_a_dla_is_not_to_compute_is_sent_to_the_gpu(version: str, brightest: Maker) -> None:
    trt = standin.tensorrt(version, dla_cores=1)
    implicit = Implicit({"conv": "fp32"}, {})
    plan = build_engine(serialize(brightest()), ON_DLA, trt=trt, implicit=implicit)
    ((layer, device),) = standin.called(trt, "IBuilderConfig.set_device_type")
    assert (layer.name, device) == ("conv", trt.DeviceType.GPU)
    assert plan.options["layers_on_gpu"] == 3


def test_a_dla_of_today_takes_the_graph(brightest: Maker) -> None:
    trt = standin.tensorrt("11.4.0", dla_cores=1)
    trt.__version__ = "11.4.1"  # The one that has a DLA again; no list of it was at hand.
    plan = build_engine(serialize(to_fp16(brightest())), ON_DLA, trt=trt)
    assert plan.precisions == {"conv": "fp16"}
    assert flags(trt) == {"GPU_FALLBACK"}


@pytest.mark.parametrize(
    ("version", "cores", "options", "error", "said"),
    [
        ("8.6.1", 0, {}, RuntimeMissing, "there is no DLA on this machine"),
        ("10.3.0", 2, {"dla_core": 2}, UsageError, "no DLA core 2; there are 0 to 1"),
        ("10.3.0", 2, {"gpu_fallback": False}, UsageError, "does not take 3 of 4 layers: graph"),
        ("11.4.0", 2, {}, UsageError, r"TensorRT 11\.4\.0 has no DLA"),
        ("rtx-1.7.1", 2, {}, UsageError, r"TensorRT-RTX 1\.7\.1 has no DLA"),
    ],
)
def test_a_dla_that_is_not_there_is_refused(
    version: str,
    cores: int,
    options: dict[str, Any],
    error: type[Exception],
    said: str,
    brightest: Maker,
) -> None:
    trt = standin.tensorrt(version, dla_cores=cores)
    chosen = PlanOptions(**({"dla_core": 0, "timing_cache": "none"} | options))
    with pytest.raises(error, match=said):
        build_engine(serialize(to_fp16(brightest())), chosen, trt=trt)


def test_a_dla_takes_no_varying_batch(brightest: Maker) -> None:
    trt = standin.tensorrt("10.3.0", dla_cores=1)
    with pytest.raises(UsageError, match="one batch and one size"):
        build_engine(serialize(to_fp16(brightest(batch="N"))), ON_DLA, trt=trt)
