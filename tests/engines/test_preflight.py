"""The table of what an engine was made for against what is here, row by row."""

import logging
import platform
from pathlib import Path
from typing import Any

import pytest
from cards import model_card
from graphs import onnx_network

from edgeseg.artifacts.files import sha256_bytes
from edgeseg.artifacts.sidecar import Runtime, SideCar, sidecar_path
from edgeseg.engines.cuda import DeviceFacts
from edgeseg.engines.tensorrt.preflight import (
    EngineFile,
    Host,
    check,
    mismatch,
    rebuild_command,
    warn_if_stale,
)
from edgeseg.errors import MismatchedArtifact

CARD = model_card("ab", 16, 24, precision="int8")
HERE = "linux x86_64"


def gpu(name: str = "NVIDIA A10", capability: tuple[int, int] = (8, 6)) -> DeviceFacts:
    return DeviceFacts(name, capability, False, 24000, "13.0", "13.0")


def made(runtime: Runtime = "tensorrt", version: str = "10.3.0", **fields: Any) -> SideCar:
    return SideCar(
        artifact_sha256="0" * 64, card=CARD, runtime=runtime, runtime_version=version, **fields
    )


def rtx(version: str = "1.7.1.116", **fields: Any) -> SideCar:
    return made("tensorrt-rtx", version, **fields)


def header(*version: int) -> bytes:
    return (b"vtrt" + bytes(20) + bytes(version)).ljust(64, b"\0")


A10 = {"gpu": "NVIDIA A10", "compute_capability": "sm_86"}
ORIN = {"gpu": "Orin (nvgpu)", "compute_capability": "sm_[N/A]"}


COMPATIBLE: dict[str, Any] = {"build_options": {"version_compatible": True}}
AMPERE: dict[str, Any] = {"build_options": {"hardware_compatibility": "ampere+"}}
L4, T4 = gpu("NVIDIA L4", (8, 9)), gpu("Tesla T4", (7, 5))


@pytest.mark.parametrize(
    ("sidecar", "version", "device"),
    [
        (made(platform=HERE, **A10), "10.3.0", gpu()),
        # Wheels say the build number, JetPack's package does not.
        (made(version="10.3.0.26", **A10), "10.3.0", gpu()),
        (made(**ORIN), "10.3.0", gpu("Orin", (8, 7))),
        (made(**COMPATIBLE, **A10), "10.16.1", gpu()),
        (made(**AMPERE, **A10), "10.3.0", L4),
        (rtx(), "1.7.1.116", gpu("NVIDIA H100", (9, 0))),  # RTX has the last word
        (rtx(targets=("sm_75", "sm_86")), "1.7.1.116", gpu()),
    ],
)
def test_what_fits(sidecar: SideCar, version: str, device: DeviceFacts) -> None:
    assert mismatch(sidecar, header(1, 7, 1, 116), Host(version, device, HERE)) is None


@pytest.mark.parametrize(
    ("sidecar", "version", "device", "made_for", "found"),
    [
        (made(platform="linux aarch64"), "10.3.0", gpu(), "linux aarch64", "linux x86_64"),
        (made(), "10.3.1", gpu(), "TensorRT 10.3.0", "TensorRT 10.3.1"),
        (made(**COMPATIBLE), "11.4.0", gpu(), "TensorRT 10.3.0", "TensorRT 11.4.0"),
        (made(version="10.16.1", **COMPATIBLE), "10.3.0", gpu(), "TensorRT 10.16.1", "10.3.0"),
        (made(**A10), "10.3.0", L4, "NVIDIA A10, sm_86", "NVIDIA L4, sm_89"),
        (made(**A10), "10.3.0", gpu("RTX 3090"), "NVIDIA A10, sm_86", "RTX 3090, sm_86"),
        (made(**ORIN), "10.3.0", gpu("Thor", (11, 0)), "Orin (nvgpu)", "Thor, sm_110"),
        (made(**AMPERE, **A10), "10.3.0", T4, "GPUs of sm_80 and later", "Tesla T4, sm_75"),
        (rtx("1.6.0.10"), "1.7.1.116", gpu(), "TensorRT-RTX 1.6.0.10", "TensorRT-RTX 1.7.1.116"),
        (rtx(), "1.7.1.116", T4, "GPUs of sm_80 and later", "Tesla T4, sm_75"),
        (rtx(targets=("sm_89",)), "1.7.1.116", gpu(), "sm_89", "NVIDIA A10, sm_86"),
    ],
)
def test_what_does_not(
    sidecar: SideCar, version: str, device: DeviceFacts, made_for: str, found: str
) -> None:
    said = mismatch(sidecar, header(1, 7, 1, 116), Host(version, device, HERE))
    assert said is not None
    assert said.made_for == made_for
    assert said.found.endswith(found)


@pytest.mark.parametrize(
    ("head", "made_for"),
    [
        (header(1, 6, 0, 10), "TensorRT-RTX 1.6.0.10 by its own header"),
        (b"ftrt".ljust(64, b"\0"), "TensorRT-RTX by what its side-car says"),
        (b"vtrt", "TensorRT-RTX by what its side-car says"),
        (b"", "TensorRT-RTX by what its side-car says"),
    ],
)
def test_the_header_of_an_rtx_engine_is_believed_over_its_side_car(
    head: bytes, made_for: str
) -> None:
    found = mismatch(rtx(), head, Host("1.7.1.116", gpu(), HERE))
    assert found is not None
    assert found.made_for == made_for


def test_the_header_of_a_real_engine_is_read_where_it_is(tmp_path: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    from edgeseg.engines.tensorrt import PlanOptions, build_engine

    model = onnx_network("float[1,1,2,2] x", "float[1,1,2,2] y", "y = Relu (x)")
    plan = build_engine(model.SerializeToString(), PlanOptions(), trt=trt)
    host = Host(plan.version, gpu(), HERE)
    assert mismatch(rtx(plan.version), plan.data[:64], host) is None
    assert mismatch(rtx("1.0.0"), plan.data[:64], Host("1.0.0", gpu(), HERE)) is not None


def test_one_sentence_and_the_command(tmp_path: Path) -> None:
    engine, data = tmp_path / "model.int8.engine", header(1, 7, 1, 116)
    host = Host("1.7.1.116", gpu(), HERE)
    with pytest.raises(MismatchedArtifact) as caught:
        check(EngineFile(engine, data, rtx(targets=("sm_89",))), host)
    assert str(caught.value) == (f"{engine} was built for sm_89, and this is NVIDIA A10, sm_86")
    assert caught.value.hint == (
        f"edgeseg build {tmp_path}/model.onnx --int8 --runtime tensorrt-rtx "
        "--target sm_89 --target sm_86 --overwrite"
    )
    check(EngineFile(engine, data, rtx(targets=("sm_86",))), host)


def test_the_command_has_the_options_of_the_engine() -> None:
    options = {
        "batch": "1:1:8",
        "sizes": "256x128:512x256:1024x512",
        "workspace_mib": 512,
        "optimisation_level": 5,
        "hardware_compatibility": "ampere+",
        "dla_core": 0,
        "gpu_fallback": False,
        "tf32": False,
        "timing_cache": "/somewhere",
    }
    assert rebuild_command(Path("a run/model.int8.engine"), made(build_options=options)) == (
        "edgeseg build 'a run/model.onnx' --int8 --runtime tensorrt --batch 1:1:8 "
        "--sizes 256x128:512x256:1024x512 --workspace 512 --optimisation-level 5 "
        "--hardware-compatibility ampere+ --dla 0 --no-tf32 --no-gpu-fallback "
        "--overwrite"
    )
    fixed = made(build_options={"batch": 1, "tf32": True})
    assert rebuild_command(Path("r/model.int8.engine"), fixed) == (
        "edgeseg build r/model.onnx --int8 --runtime tensorrt --overwrite"
    )


def test_this_machine_has_the_platform_that_builds_write() -> None:
    assert Host("1", gpu()).platform == f"{platform.system()} {platform.machine()}".lower()


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """``model.onnx`` → ``model.int8.tensorrt.onnx`` → an engine: their side-cars."""
    network, graph = tmp_path / "model.onnx", tmp_path / "model.int8.tensorrt.onnx"
    first, second = sha256_bytes(b"network"), sha256_bytes(b"graph")
    for path, own, parent in ((network, first, None), (graph, second, first)):
        made("onnxruntime").model_copy(update={"artifact_sha256": own, "onnx_sha256": parent}).save(
            sidecar_path(path)
        )
    return tmp_path / "model.int8.engine"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (None, None),
        ("model.onnx", "another model.onnx"),
        ("model.int8.tensorrt.onnx", "another model.int8.tensorrt.onnx"),
    ],
)
def test_a_newer_network_beside_the_engine_is_a_warning(
    chain: Path, changed: str | None, named: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    engine = made(onnx_sha256=sha256_bytes(b"graph"))
    if changed:
        made("onnxruntime").save(sidecar_path(chain.with_name(changed)))
    with caplog.at_level(logging.WARNING, "edgeseg"):
        warn_if_stale(chain, engine)
    if named is None:
        assert not caplog.records
    else:
        (record,) = caplog.records
        assert named in record.message
        assert "build it again: edgeseg build" in record.message
