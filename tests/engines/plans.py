"""Engines of the stand-ins, with their side-cars, and where to run them."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import standin
from onnx import ModelProto
from standin.cuda import Driver, DriverApi, Library, Runtime
from standin.device import Device

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import sha256_file
from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.engines.cuda import Cuda
from edgeseg.engines.cuda.cuda_python import CudaPython
from edgeseg.engines.cuda.pycuda import PyCuda
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.engines.tensorrt.preflight import EngineFile
from edgeseg.engines.tensorrt.run import TensorRtEngine
from edgeseg.precision.graph import read_card

BATCHES = (1, 2, 4)
SIZES = ((8, 8), (16, 24), (32, 48))
"""Smallest, typical and largest, where a network's vary."""


spoilt = pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "damaged"),
        (lambda file: file.write_bytes(b""), "damaged"),
        (lambda file: file.chmod(0o666), "others can write it"),
        (lambda file: (file.unlink(), file.mkdir()), "no file of ours|Is a directory"),
    ],
    ids=["cut short", "empty", "writable by others", "folder"],
)
"""Ways in which a cache of ours is no longer one, and what is logged of each."""


def open_sized(model: ModelProto) -> ModelProto:
    """Let height and width vary, in place."""
    for value in (*model.graph.input, *model.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim[-2:], "HW", strict=True):
            dim.dim_param = name
    return model


def random_batch(size: int) -> np.ndarray:
    """Of the networks that ``brightest`` makes."""
    return np.random.default_rng(size).normal(size=(size, 3, 16, 24)).astype(np.float32)


def vouch(path: Path, card: ModelCard, runtime: str, **options: bool) -> None:
    """Write the side-car of an engine of a runtime for the processor."""
    SideCar(
        artifact_sha256=sha256_file(path),
        card=card,
        runtime=runtime,
        runtime_version="1",
        build_options=options,
    ).save(sidecar_path(path))


@dataclass
class Bench:
    """One GPU, one TensorRT on it, and a network as ONNX and as engine."""

    device: Device
    trt: Any
    cuda: Cuda
    onnx: Path
    plan: Path

    def engine(self, **arguments: Any) -> TensorRtEngine:
        return TensorRtEngine(EngineFile.read(self.plan), self.trt, self.cuda, **arguments)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let edgeseg find this TensorRT and this GPU."""
        patch.setitem(sys.modules, "tensorrt", self.trt)
        patch.setitem(sys.modules, "cuda.bindings.runtime", Runtime(self.device))

    def expected(self, batch: np.ndarray) -> np.ndarray:
        """The labels that ONNX Runtime gives."""
        with OnnxRuntimeEngine(self.onnx, threads=1) as reference:
            return reference.infer(batch)


def adapter(name: str, device: Device) -> Cuda:
    if name == "cuda-python":
        return CudaPython(Runtime(device), DriverApi(device))
    driver = Driver(device)
    return PyCuda(driver, Library(driver))


def bench(
    model: ModelProto,
    folder: Path,
    version: str = "10.3.0",
    *,
    device: Device | None = None,
    through: str = "cuda-python",
    changes: dict[str, Any] | None = None,
    **machine: Any,
) -> Bench:
    """Build ``model`` with one version of TensorRT.

    Args:
        model: With its card inside.
        folder: For ``model.onnx``, ``model.fp32.engine`` and the side-car.
        version: One of ``standin.VERSIONS``.
        device: The GPU.
        through: ``cuda-python`` or ``pycuda``.
        changes: Fields of the side-car that differ.
        machine: Fields of ``standin.Machine``.
    """
    device = device or Device()
    trt = standin.tensorrt(version, gpu=device.name, device=device, **machine)
    network = folder / "model.onnx"
    onnx.save(model, network)
    path = folder / "model.fp32.engine"
    path.write_bytes(serialized(trt, network.read_bytes()))
    rtx = version.startswith("rtx-")
    SideCar(
        artifact_sha256=sha256_file(path),
        card=read_card(model, str(network)),
        runtime="tensorrt-rtx" if rtx else "tensorrt",
        runtime_version=trt.__version__,
        onnx_sha256=sha256_file(network),
        **({} if rtx else {"gpu": device.name, "compute_capability": "sm_86"}),
    ).model_copy(update=changes or {}).save(sidecar_path(path))
    return Bench(device, trt, adapter(through, device), network, path)


def serialized(trt: Any, data: bytes) -> bytes:
    """A plan, as the stand-in builds it."""
    builder = trt.Builder(trt.Logger())
    config = builder.create_builder_config()
    explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    assert trt.OnnxParser(network, trt.Logger()).parse(data)
    source = network.get_input(0)
    if -1 in tuple(source.shape):
        profile = builder.create_optimization_profile()
        shape = tuple(source.shape)
        sizes = SIZES if -1 in shape[2:] else (shape[2:],) * 3
        shapes = ((n, shape[1], *size) for n, size in zip(BATCHES, sizes, strict=True))
        profile.set_shape(source.name, *shapes)
        config.add_optimization_profile(profile)
    return bytes(builder.build_serialized_network(network, config))
