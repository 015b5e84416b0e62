"""The public names, and that naming the package costs next to nothing."""

import subprocess
import sys

import pytest

import edgeseg
import edgeseg.stream
from edgeseg import errors
from edgeseg.runs import BUNDLED

HEAVY = ("torch", "cv2", "onnx", "onnxruntime", "numpy", "pydantic", "matplotlib", "rich", "typer")


def loaded_by(code: str) -> set[str]:
    """Top-level names of the modules a fresh interpreter holds after ``code``."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_public_names_are_these() -> None:
    assert edgeseg.__all__ == sorted(
        [
            "Engine",
            "ModelCard",
            "Stream",
            "StreamResult",
            "__version__",
            "export_module",
            "load",
            *errors.__all__,
        ]
    )


@pytest.mark.parametrize("name", edgeseg.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(edgeseg, name) is not None
    assert name in dir(edgeseg)


@pytest.mark.parametrize("name", edgeseg.stream.__all__)
def test_every_name_of_a_stream_resolves(name: str) -> None:
    assert getattr(edgeseg.stream, name).__name__ == name or name == "Mode"
    assert name in dir(edgeseg.stream)


def test_errors_are_those_of_the_errors_module() -> None:
    assert errors.__all__ == sorted(
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.EdgesegError)
    )
    for name in errors.__all__:
        assert getattr(edgeseg, name) is getattr(errors, name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnet'"):
        edgeseg.segmnet  # noqa: B018 - the access is the test


def test_import_loads_nothing_heavy() -> None:
    assert not loaded_by("import edgeseg") & set(HEAVY)


def test_the_list_of_commands_loads_none_of_them() -> None:
    listing = "from edgeseg.cli import _needed, make_app\nmake_app(_needed(['--help']))"
    assert not loaded_by(listing) & (set(HEAVY) - {"typer"})


@pytest.mark.parametrize("words", [["stream", "--help"], ["--", "stream"], []])
def test_commands_that_may_run_are_loaded(words: list[str]) -> None:
    making = f"from edgeseg.cli import _needed, make_app\nmake_app(_needed({words}))"
    assert "pydantic" in loaded_by(making)


def test_heavy_modules_would_be_seen() -> None:
    assert {"numpy", "cv2"} <= loaded_by("import edgeseg.ops.preprocess")


def test_a_stream_imports_only_what_its_source_and_engine_need() -> None:
    engine = BUNDLED / "nuclei" / "model.int8.onnx"
    stream = f"Stream('test:64x64?frames=2', edgeseg.load({str(engine)!r}))"
    loaded = loaded_by(f"import edgeseg\nfrom edgeseg.stream import Stream, run\nrun({stream})")
    assert {"cv2", "onnxruntime"} <= loaded
    assert not {"av", "matplotlib", "onnx", "openvino", "rich", "torch", "typer"} & loaded
