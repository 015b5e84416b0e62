"""Model repositories, read by Triton's own protobuf messages and served by its own server.

No wheel brings Triton's ONNX Runtime, OpenVINO and TensorRT back ends. The server of the wheel
``nvidia-pytriton`` brings the Python one: there the repository is served as written but for the
name of the back end, and a few lines of Python run the network that lies in it. Its stub reads
the size of an array's items as NumPy 1 laid it out: with NumPy 2 every answer has no bytes and
every picture is its first pixel.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cards import model_card
from engines.plans import bench
from onnx import ModelProto

from edgeseg.artifacts.card import ClassMap, InputSpec
from edgeseg.artifacts.files import sha256_bytes
from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.data.folders import load_image
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError
from edgeseg.export.triton import Served, write_repository
from edgeseg.ops.preprocess import preprocess
from edgeseg.options.serving import Serving

Maker = Callable[..., ModelProto]

text_format = pytest.importorskip("google.protobuf.text_format")
grpcclient = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
model_config_pb2 = grpcclient.model_config_pb2


def saved(model: ModelProto, path: Path, runtime: str | None = None) -> Path:
    onnx.save(model, path)
    if runtime:
        with OnnxRuntimeEngine(path) as engine:
            card = engine.card
        data = path.read_bytes()
        SideCar(
            artifact_sha256=sha256_bytes(data), card=card, runtime=runtime, runtime_version="1"
        ).save(sidecar_path(path))
    return path


def config_of(served: Served) -> Any:
    """The configuration as Triton reads it, and what Triton asks of every one."""
    config = text_format.Parse(
        (served.folder / "config.pbtxt").read_text("utf-8"), model_config_pb2.ModelConfig()
    )
    assert config.name == served.folder.name == served.model
    assert (served.folder / str(served.version) / config.default_model_filename).is_file()
    for port in (*config.input, *config.output):
        assert port.data_type != model_config_pb2.TYPE_INVALID
        assert len(port.dims) > 0
        assert all(size == -1 or size > 0 for size in port.dims)
        assert config.max_batch_size == 0 or port.dims[0] != -1 or len(port.dims) > 1
    for port in config.output:
        assert not port.label_filename or (served.folder / port.label_filename).is_file()
    assert not config.HasField("dynamic_batching") or config.max_batch_size > 0
    return config


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_the_ports_are_those_of_the_network(brightest: Maker, tmp_path: Path, batch: Any) -> None:
    path = saved(brightest(batch), tmp_path / "model.onnx")
    served = write_repository(path, tmp_path / "repository", Serving(name="any.name_1"))
    config = config_of(served)
    assert config.backend == "onnxruntime"
    session = onnxruntime.InferenceSession(served.folder / "1" / "model.onnx")
    for port, found, kind in (
        (config.input[0], session.get_inputs()[0], model_config_pb2.TYPE_FP32),
        (config.output[0], session.get_outputs()[0], model_config_pb2.TYPE_UINT8),
    ):
        assert port.name == found.name
        assert port.data_type == kind
        whole = [-1, *port.dims] if config.max_batch_size else list(port.dims)
        assert whole == [-1 if isinstance(size, str) else size for size in found.shape]
    assert config.max_batch_size == (8 if batch == "N" else 0)
    assert config.HasField("dynamic_batching") == (batch == "N")
    # Warm-up as the server makes it: zeros of these sizes are what the network takes.
    warmup = config.model_warmup[0]
    sizes = list(warmup.inputs["image"].dims)
    zeros = np.zeros([warmup.batch_size, *sizes] if config.max_batch_size else sizes, np.float32)
    session.run(None, {"image": zeros})


def test_what_a_client_needs_is_in_the_configuration(brightest: Maker, tmp_path: Path) -> None:
    names = ('back"ground', "path\\to", "Straße, naß", "two\nlines")
    card = model_card(
        names[:3], 16, 24, name="élan vital/1", arch="brightest", resize="letterbox", color="bgr"
    )
    served = write_repository(
        saved(brightest("N", card=card), tmp_path / "model.onnx"), tmp_path / "repository"
    )
    config = config_of(served)
    told = {key: value.string_value for key, value in config.parameters.items()}
    assert InputSpec.model_validate_json(told["edgeseg.input"]) == card.input
    assert ClassMap.model_validate_json(told["edgeseg.classes"]) == card.classes
    labels = (served.folder / "labels.txt").read_text("utf-8").splitlines()
    assert labels == list(names[:3])


def test_logits_have_no_labels_file(brightest: Maker, tmp_path: Path) -> None:
    path = saved(brightest("N", output="logits"), tmp_path / "model.onnx")
    config = config_of(write_repository(path, tmp_path / "repository"))
    assert config.output[0].data_type == model_config_pb2.TYPE_FP32
    assert list(config.output[0].dims) == [3, 16, 24]
    assert not config.output[0].label_filename


def test_what_was_built_for_openvino_goes_to_its_back_end(brightest: Maker, tmp_path: Path) -> None:
    path = saved(brightest(1), tmp_path / "model.openvino.onnx", "openvino")
    config = config_of(write_repository(path, tmp_path / "repository"))
    assert config.backend == "openvino"
    assert config.default_model_filename == "model.onnx"
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU


@pytest.mark.parametrize("beside", [True, False], ids=["graph beside it", "alone"])
def test_an_engine_of_tensorrt(brightest: Maker, tmp_path: Path, beside: bool) -> None:
    made = bench(brightest("N"), tmp_path, changes={"build_options": {"batch": "1:4:16"}})
    if not beside:
        made.onnx.unlink()
    served = write_repository(made.plan, tmp_path / "repository")
    config = config_of(served)
    assert (config.backend, config.max_batch_size) == ("tensorrt", 16)
    assert config.input[0].name == "image"
    assert list(config.input[0].dims) == [3, 16, 24]
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert (served.folder / "1" / "model.plan").read_bytes() == made.plan.read_bytes()


def test_an_engine_of_other_ports_is_read_from_its_graph(brightest: Maker, tmp_path: Path) -> None:
    model = brightest(1)
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    made = bench(model, tmp_path)
    assert config_of(write_repository(made.plan, tmp_path / "r")).input[0].name == "pixels"


def test_refused(brightest: Maker, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    fixed = saved(brightest(1), tmp_path / "model.onnx", "onnxruntime")
    with pytest.raises(UsageError, match="takes batches of 1 only") as caught:
        write_repository(fixed, repository, Serving(max_batch=8))
    assert "--dynamic-batch" in (caught.value.hint or "")
    (tmp_path / "rtx").mkdir()
    rtx = bench(brightest(1), tmp_path / "rtx", "rtx-1.7.1")
    with pytest.raises(UsageError, match="built by tensorrt-rtx"):
        write_repository(rtx.plan, repository)
    (tmp_path / "trt").mkdir()
    small = bench(brightest("N"), tmp_path / "trt", changes={"build_options": {"batch": "1:2:4"}})
    with pytest.raises(UsageError, match="up to 4, not 8"):
        write_repository(small.plan, repository, Serving(max_batch=8))
    with pytest.raises(UsageError, match="named by letters"):
        Serving(name="../elsewhere")
    fixed.write_bytes(fixed.read_bytes()[:-1] + b"\0")
    with pytest.raises(CorruptArtifact):
        write_repository(fixed, repository)
    assert not repository.exists()


def test_the_next_version_stands_beside_the_first(brightest: Maker, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    path = saved(brightest("N"), tmp_path / "model.onnx")
    write_repository(path, repository, Serving(name="eye"))
    second = write_repository(path, repository, Serving(name="eye", max_batch=2, instances=3))
    assert second.version == 2
    config = config_of(second)
    assert (config.max_batch_size, config.instance_group[0].count) == (2, 3)
    assert sorted(entry.name for entry in second.folder.iterdir()) == [
        "1",
        "2",
        "config.pbtxt",
        "labels.txt",
    ]
    other = saved(brightest("N", output="logits"), tmp_path / "other.onnx")
    before = sorted(repository.rglob("*"))
    with pytest.raises(MismatchedArtifact, match="serves another model"):
        write_repository(other, repository, Serving(name="eye"))
    assert sorted(repository.rglob("*")) == before


SERVER = Path(os.environ.get("EDGESEG_TRITON", ""), "bin", "tritonserver")
BESIDE = (SERVER / "../../../..").resolve()  # where pip put the wheel, and NumPy 1 beside it
needs_server = pytest.mark.skipif(
    not (SERVER.is_file() and (BESIDE / "numpy").is_dir()),
    reason="EDGESEG_TRITON names no folder of a Triton with a NumPy 1: pip install --no-deps "
    "--target DIR nvidia-pytriton 'numpy<2', then DIR/pytriton/tritonserver",
)

# Triton's interface for models in Python: `python_backend`, README.md.
BACK_END = """
import os, sys
sys.path[:0] = [{beside!r}]
sys.path += {path!r}  # its interpreter is not of this environment
import numpy as np, onnxruntime
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        folder = os.path.join(args["model_repository"], args["model_version"])
        self.session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"))

    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(r, "image").as_numpy() for r in requests]
        (labels,) = self.session.run(None, {"image": np.concatenate(images)})
        parts = np.split(labels, np.cumsum([len(image) for image in images])[:-1])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("labels", part)]) for part in parts
        ]
"""


@contextmanager
def tritonserver(repository: Path) -> Iterator[Any]:
    """Triton over ``repository`` on loopback; a client of it. Ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = SERVER.parents[1]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backends = Path(tempfile.mkdtemp(dir=repository.parent))
    (backends / "python").mkdir()
    for path in (home / "backends" / "python").iterdir():
        (backends / "python" / path.name).symlink_to(path)
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    (backends / "python" / "triton_python_backend_stub").symlink_to(stub)
    for program in (SERVER, stub):
        program.chmod(0o755)
    command = [
        *(SERVER, "--model-repository", repository, "--backend-directory", backends),
        *("--allow-http", "false", "--allow-metrics", "false"),
        *("--grpc-address", "127.0.0.1", "--grpc-port", port),
    ]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = []
        try:
            for line in server.stderr:
                said.append(line)
                if "Started GRPCInferenceService" in line:
                    break
            else:
                raise AssertionError("".join(said))
            with grpcclient.InferenceServerClient(f"127.0.0.1:{port}") as client:
                yield client
        finally:
            server.terminate()
            server.communicate(timeout=60)


@needs_server
def test_triton_serves_it(brightest: Maker, tmp_path: Path, nuclei: Path) -> None:
    """Started with the configuration, warmed up, four requests answered as one batch."""
    # Of a grey picture the first channel is highest where it is bright, the last where it is dark.
    card = model_card(
        ("bright", "between", "dark"),
        16,
        24,
        name="bright",
        arch="brightest",
        mean=(0.1,) * 3,
        std=(0.1, 0.2, 0.4),
    )
    path = saved(brightest("N", card=card), tmp_path / "model.onnx")
    repository = tmp_path / "repository"
    served = write_repository(
        path, repository, Serving(name="eye", max_batch=4, queue_delay_ms=20_000)
    )
    config = served.folder / "config.pbtxt"
    config.write_text(
        config.read_text("utf-8")
        .replace('backend: "onnxruntime"', 'backend: "python"')
        .replace('default_model_filename: "model.onnx"', 'default_model_filename: "model.py"'),
        "utf-8",
    )
    (served.folder / "1" / "model.py").write_text(
        BACK_END.replace("{path!r}", repr(sys.path)).replace("{beside!r}", repr(str(BESIDE)))
    )
    pictures = sorted((nuclei / "val" / "images").iterdir())[:4]
    with OnnxRuntimeEngine(path) as engine:
        batch = np.stack([preprocess(load_image(file), card.input) for file in pictures])
        expected = engine.infer(batch).copy()
    assert len(np.unique(expected)) > 1
    with tritonserver(repository) as client:
        told = client.get_model_config("eye", as_json=True)["config"]["parameters"]
        with ThreadPoolExecutor(4) as pool:  # each waits for its answer: one batch or none
            answers = list(pool.map(partial(_ask, client), batch))
        counts, deadline = ("", ""), time.monotonic() + 30
        while counts != ("5", "2") and time.monotonic() < deadline:  # it answers, then counts
            (found,) = client.get_inference_statistics("eye", as_json=True)["model_stats"]
            counts = (found["inference_count"], found["execution_count"])
    assert InputSpec.model_validate_json(told["edgeseg.input"]["string_value"]) == card.input
    classes = json.loads(told["edgeseg.classes"]["string_value"])
    assert (classes["names"], classes["background"]) == (list(card.classes.names), None)
    for answer, labels in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer.as_numpy("labels")[0], labels)
    # The zeros of the warm-up by themselves, the four pictures together.
    assert counts == ("5", "2")


def _ask(client: Any, image: np.ndarray) -> Any:
    source = grpcclient.InferInput("image", [1, *image.shape], "FP32")
    source.set_data_from_numpy(image[np.newaxis])
    return client.infer("eye", [source])


@needs_server
def test_triton_refuses_another_configuration(brightest: Maker, tmp_path: Path) -> None:
    """What the test above relies on: the server does look at the configuration."""
    path = saved(brightest("N"), tmp_path / "model.onnx")
    served = write_repository(path, tmp_path / "repository", Serving(name="eye"))
    config = served.folder / "config.pbtxt"
    text = config.read_text("utf-8").replace("TYPE_UINT8", "TYPE_UINT7")
    config.write_text(text, "utf-8")
    with pytest.raises(AssertionError, match="TYPE_UINT7"), tritonserver(tmp_path / "repository"):
        pass
