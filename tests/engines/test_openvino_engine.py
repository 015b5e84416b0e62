import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from engines.plans import vouch
from onnx import ModelProto

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.documents import load
from edgeseg.data.folders import load_image
from edgeseg.engines import open_engine
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import ArtifactError, MismatchedArtifact, RuntimeMissing
from edgeseg.evaluation import agreement
from edgeseg.precision.graph import load_model, serialize
from edgeseg.precision.int8 import to_int8
from edgeseg.precision.ranges import Ranges

pytest.importorskip("openvino", reason="OpenVINO is not installed", exc_type=ImportError)

from edgeseg.engines.openvino import OpenVinoEngine

Maker = Callable[..., ModelProto]


@pytest.mark.parametrize(
    ("name", "least"), [("model.onnx", 0.999), ("model.fp16.onnx", 0.98), ("model.int8.onnx", 0.98)]
)
def test_real_networks_agree_with_onnx_runtime(
    trained: Path, small_data: Path, name: str, least: float
) -> None:
    pictures = [load_image(path) for path in sorted((small_data / "val" / "images").iterdir())]
    with (
        OnnxRuntimeEngine(trained / name, 1) as reference,
        OpenVinoEngine(trained / name, 1) as engine,
    ):
        assert engine.card == reference.card
        assert agreement(reference, engine, pictures) >= least


def test_int8_activations_are_refused(trained: Path, tmp_path: Path) -> None:
    """TensorRT's form, which OpenVINO computes wrongly and without a word."""
    ranges = load(Ranges, trained / "model.ranges.json").ranges
    path = tmp_path / "model.int8.tensorrt.onnx"
    model = to_int8(load_model(trained / "model.onnx"), ranges, graph_format="tensorrt")
    path.write_bytes(serialize(model))
    OnnxRuntimeEngine(path).close()
    with pytest.raises(MismatchedArtifact, match="quantised to int8") as caught:
        OpenVinoEngine(path)
    assert "--runtime openvino" in str(caught.value.hint)


def test_the_side_car_chooses_the_runtime(network: Path, card: ModelCard) -> None:
    with open_engine(network) as engine:
        assert engine.runtime == "onnxruntime"
    vouch(network, card, "openvino")
    with open_engine(network) as engine:
        assert engine.runtime == "openvino"


@pytest.mark.parametrize("operator", ["NoSuchOperator", "Conv"])
def test_networks_that_openvino_cannot_run_are_refused_in_one_sentence(
    brightest: Maker, tmp_path: Path, operator: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = brightest()
    conv = model.graph.node[0]
    conv.op_type = operator
    if operator == "Conv":
        conv.attribute[0].ints[:] = [1]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"OpenVINO \d+\.\d+\.\d+ cannot") as caught:
        OpenVinoEngine(path)
    assert "\n" not in str(caught.value)
    assert "src/" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_library_says_how_to_get_it(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeMissing, match="OpenVINO is not installed") as caught:
        OpenVinoEngine(network)
    assert caught.value.hint == "pip install 'edgeseg[openvino]'"


@pytest.mark.parametrize(
    ("code", "reported"),
    [("from edgeseg.engines.openvino import library; library()", False), ("import openvino", True)],
)
def test_importing_it_reports_to_nobody(tmp_path: Path, code: str, reported: bool) -> None:
    """A stand-in for OpenVINO's telemetry notes that it is called, and sends nothing itself."""
    stand_in = tmp_path / "openvino_telemetry"
    (stand_in / "backend").mkdir(parents=True)
    (stand_in / "backend" / "__init__.py").write_text("backend_ga4 = None\n")
    (stand_in / "__init__.py").write_text(
        "class Telemetry:\n"
        "    def __init__(self, *_, **__): pass\n"
        "    def send_event(self, *_, **__): print('called')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("called" in ended.stdout) == reported


def test_other_engines_do_not_import_it(network: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeseg.loading import load; "
        f"load({str(network)!r}).close(); assert 'openvino' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_first_inferences_of_several_threads_end(network: Path) -> None:
    """OpenVINO 2026.4 deadlocks where threads convert their first arrays at the same time."""
    code = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from edgeseg.engines.openvino import OpenVinoEngine\n"
        "engines = [OpenVinoEngine(Path(sys.argv[1]), 1) for _ in range(12)]\n"
        "batch = np.zeros((1, *engines[0].card.input.shape), np.float32)\n"
        "start = threading.Barrier(len(engines))\n"
        "def infer(engine):\n"
        "    start.wait()\n"
        "    engine.infer(batch)\n"
        "threads = [threading.Thread(target=infer, args=[engine]) for engine in engines]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print('ended')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(network)], capture_output=True, check=True, timeout=60
    )
    assert ended.stdout == b"ended\n"
