"""The network that comes with edgeseg: taken where there is no run, and better at counting."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg import runs
from edgeseg.cli.counting import count, otsu
from edgeseg.data.folders import list_images
from edgeseg.errors import UsageError
from edgeseg.export import on_demand
from edgeseg.export.on_demand import network_of

NETWORK = runs.BUNDLED / "nuclei" / "model.onnx"


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_infer_needs_no_run(edgeseg: Any, nuclei: Path) -> None:
    picture = list_images(nuclei / "val" / "images")[0]
    result = edgeseg("infer", picture, "--out", "out")
    assert result.code == 0
    assert "bundled:nuclei, which comes with edgeseg" in result.err
    labels = cv2.imread(f"out/{picture.stem}.labels.png", cv2.IMREAD_UNCHANGED)
    assert labels.shape == cv2.imread(str(picture)).shape[:2]
    assert set(np.unique(labels)) == {0, 1, 2}  # background, nucleus, boundary


def test_a_run_of_the_user_comes_first(edgeseg: Any, run_copy: Path, nuclei: Path) -> None:
    picture = list_images(nuclei / "val" / "images")[0]
    result = edgeseg("infer", picture, "--out", "out")
    assert result.code == 0
    assert "bundled:" not in result.err
    by_name = edgeseg("infer", "bundled:nuclei", picture, "--out", "named")
    assert by_name.code == 0
    assert (
        Path(f"out/{picture.stem}.labels.png").read_bytes()
        != Path(f"named/{picture.stem}.labels.png").read_bytes()
    )


def test_inspect_describes_it(edgeseg: Any) -> None:
    artefacts = edgeseg("inspect", "bundled:nuclei", "--json").document["artefacts"]
    assert [each["problems"] for each in artefacts] == [[], [], []]
    networks = [each for each in artefacts if each["kind"] == "network"]
    assert [each["card"]["precision"] for each in networks] == ["fp32", "int8"]
    assert networks[0]["card"]["classes"]["names"] == ["background", "nucleus", "boundary"]


def test_an_unknown_name_lists_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="no such network comes with edgeseg") as caught:
        runs.located(Path("bundled:cells"))
    assert caught.value.hint == "one of bundled:nuclei"


def test_engines_are_built_in_a_copy(edgeseg: Any) -> None:
    before = sorted(path.name for path in NETWORK.parent.iterdir())
    for _ in range(2):  # the second time the copy is there
        built = edgeseg("build", "bundled:nuclei", "--fp16", "--runtime", "onnxruntime", "--json")
        assert built.code == 0, built.err
        Path(built.document["engine"]).unlink()
        Path(f"{built.document['engine']}.json").unlink()
    assert (Path("runs/nuclei/model.onnx")).read_bytes() == NETWORK.read_bytes()
    assert sorted(path.name for path in NETWORK.parent.iterdir()) == before


def test_a_copy_that_was_interrupted_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".onnx":
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(on_demand, "write_atomic", full)
        network_of(Path("bundled:nuclei"))
    assert list(Path("runs/nuclei").iterdir())
    assert network_of(Path("bundled:nuclei")).read_bytes() == NETWORK.read_bytes()


def test_no_other_network_is_taken_for_the_copy() -> None:
    Path("runs/nuclei").mkdir(parents=True)
    shutil.copy(__file__, "runs/nuclei/model.onnx")
    with pytest.raises(UsageError, match="holds another network than bundled:nuclei"):
        network_of(Path("bundled:nuclei"))


def test_it_counts_nuclei_better_than_a_threshold(nuclei: Path) -> None:
    """On the held-out pictures, none of which it was trained on."""
    scores, drawn = count({"network": NETWORK}, nuclei)
    threshold, network = scores["threshold"], scores["network"]
    assert threshold.truths == network.truths
    assert (network.f1 or 0) > (threshold.f1 or 0)
    assert network.merges < threshold.merges
    panels = cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR)
    assert panels.shape == (284, 4 * 260 + 3 * 8, 3)  # picture, truth, threshold, network


@pytest.mark.parametrize("inverted", [False, True])
def test_otsu_takes_the_smaller_side(inverted: bool) -> None:
    image = np.full((64, 64, 3), 40, np.uint8)
    image[20:30, 20:30] = 220
    found = otsu(255 - image if inverted else image)
    assert found[25, 25] == 1
    assert 60 <= found.sum() <= 140
    assert found[:10].sum() == 0
