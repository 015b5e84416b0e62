"""The stand-ins of TensorRT hold what they promise, or the tests on them mean nothing."""

import json

import pytest
import standin
from standin import building, running
from standin.surface import API


def test_other_names_are_refused_with_version_and_name() -> None:
    old, new = standin.tensorrt("8.6.1"), standin.tensorrt("11.4.0")
    assert old.BuilderFlag.FP16.name == "FP16"
    with pytest.raises(AttributeError, match=r"TensorRT 11\.4\.0 has no BuilderFlag\.FP16"):
        new.BuilderFlag.FP16  # noqa: B018
    with pytest.raises(AttributeError, match=r"TensorRT 11\.4\.0 has no DataType\.is_small"):
        new.DataType.HALF.is_small  # noqa: B018
    with pytest.raises(AttributeError, match=r"TensorRT 8\.6\.1 has no IProgressMonitor"):

        class Monitor(old.IProgressMonitor):  # type: ignore[misc, name-defined]
            pass


def test_assignments_are_held_to_the_list() -> None:
    for version, taken in (("10.3.0", True), ("11.4.0", False)):
        trt = standin.tensorrt(version)
        config = trt.Builder(trt.Logger()).create_builder_config()
        config.builder_optimization_level = 4
        if taken:
            config.int8_calibrator = None
            continue
        with pytest.raises(AttributeError, match=r"11\.4\.0 has no IBuilderConfig\.int8_calib"):
            config.int8_calibrator = None
        assert standin.called(trt, "IBuilderConfig.builder_optimization_level") == [(4,)]


def test_what_is_listed_and_not_written_says_so_when_called() -> None:
    trt = standin.tensorrt("10.16.1")
    with pytest.raises(NotImplementedError, match="Builder.reset"):
        trt.Builder(trt.Logger()).reset()


def test_nothing_is_written_that_no_version_has() -> None:
    """A misspelt name would never reach a module and never be missed."""
    listings = [json.loads((API / f"tensorrt-{v}.json").read_text()) for v in standin.VERSIONS]
    for module in (building, running):
        for name, written in vars(module).items():
            if not isinstance(written, type) or written.__module__ != module.__name__:
                continue
            known = {member for listing in listings for member in listing.get(name, ())}
            assert not [n for n in vars(written) if not n.startswith("_") and n not in known], name
