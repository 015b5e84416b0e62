"""What files beside a network and its own first nodes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign import NAMES, SIZE, Foreign

from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.importing import ImportConfig, import_network
from edgeseg.importing.knowledge import Known, known_of
from edgeseg.importing.options import IMAGENET, NONE, UNIT, read_classes
from edgeseg.importing.reading import read

PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 1 / 255,
    "size": {"height": SIZE[0], "width": SIZE[1]},
}
PIPELINE = {
    "pipeline": {
        "tasks": [
            {
                "module": "Transform",
                "transforms": [
                    {"type": "LoadImageFromFile"},
                    {"type": "Resize", "keep_ratio": False, "size": [512, 1024]},
                    {
                        "type": "Normalize",
                        "mean": [123.675, 116.28, 103.53],
                        "std": [58.395, 57.12, 57.375],
                        "to_rgb": True,
                    },
                ],
            },
            {"module": "Net", "name": "fcn"},
        ]
    }
}


def known(folder: Path, network: Foreign | onnx.ModelProto | None = None, **files: Any) -> Known:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / f"{name}.json").write_text(text)
    model = network or Foreign()
    path = folder / "theirs.onnx"
    onnx.save(model.model() if isinstance(model, Foreign) else model, path)
    return known_of(read(path))


def test_hugging_face(tmp_path: Path) -> None:
    config = {"id2label": {"1": "red", "0": "background", "2": "blue"}, "model_type": "segformer"}
    found = known(tmp_path, Foreign(open_size=True), config=config, preprocessor_config=PROCESSOR)
    assert found.names == NAMES
    assert (found.color, found.size, found.normalise) == ("rgb", SIZE, IMAGENET)
    assert found.origins["normalise"] == "from preprocessor_config.json"
    made = import_network(tmp_path / "theirs.onnx", tmp_path / "run")
    assert (made.card.input.height, made.card.input.width) == SIZE
    assert "(from config.json)" in dict(made.lines)["classes"]


@pytest.mark.parametrize(
    ("change", "normalise"),
    [
        ({"do_normalize": False}, UNIT),
        ({"do_normalize": False, "do_rescale": False}, NONE),
        ({"image_mean": "x"}, None),
        ({"image_std": [0, 1, 1]}, None),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, "0.5,0.5,0.5/0.5,0.5,0.5"),
    ],
)
def test_processors_without_a_part(tmp_path: Path, change: Any, normalise: Any) -> None:
    found = known(tmp_path, preprocessor_config=PROCESSOR | change).normalise
    assert (found and found.name if isinstance(normalise, str) else found) == normalise


@pytest.mark.parametrize("mean", [{}, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}])
def test_the_processor_of_mobilevit(tmp_path: Path, mean: Any) -> None:
    """As transformers 4.40 and 5.24 write it: BGR from 0 to 1, whatever mean it names."""
    content = {
        "crop_size": {"height": 256, "width": 320},
        "do_center_crop": True,
        "do_flip_channel_order": True,
        "do_rescale": True,
        "do_resize": True,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 288},
    }
    found = known(tmp_path, preprocessor_config=content | mean)
    assert (found.color, found.normalise, found.size) == ("bgr", UNIT, (256, 320))
    assert found.resize is None


def test_segmentation_models_pytorch(tmp_path: Path) -> None:
    config = {"encoder_name": "resnet18", "encoder_weights": "imagenet", "classes": 3}
    assert known(tmp_path, config=config).normalise == IMAGENET
    assert known(tmp_path, config=config | {"encoder_weights": None}).normalise is None


def test_mmdeploy(tmp_path: Path) -> None:
    found = known(tmp_path, pipeline=PIPELINE, deploy={"task": "Segmentor"})
    assert found.color == "rgb"
    assert found.resize == "stretch"
    assert found.normalise is not None
    spec = found.normalise.spec("rgb")
    assert spec == {"scale": 1.0, "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    with pytest.raises(MismatchedArtifact, match=r"deploy\.json says that its task is 'Detector'"):
        known(tmp_path, deploy={"task": "Detector"})


def test_metadata(tmp_path: Path) -> None:
    def of(**metadata: str) -> Known:
        model = Foreign().model()
        onnx.helper.set_model_props(model, metadata)
        return known(tmp_path, model)

    assert of(names="{0: 'background', 1: 'red', 2: 'blue'}", imgsz="[48, 64]") == Known(
        NAMES, SIZE, origins=dict.fromkeys(("names", "size"), "from its metadata")
    )
    assert of(names="background, red, blue").names == NAMES
    assert of(names="__import__('os').abort()").names is None
    assert of(names="{0: 'a', 2: 'b'}").names is None
    assert of(class_names="background\nred\nblue\n").names == NAMES
    assert of(classes='["background", "red", "blue"]').names == NAMES
    assert of(id2label='{"1": "red", "0": "background", "2": "blue"}').names == NAMES
    assert of(classes="3", labels="a,,b").names is None
    assert of(names="{0: 'red'}").names == ("background", "red")
    found = of(author="Ultralytics", task="semantic")
    assert (found.color, found.normalise, found.resize) == ("rgb", UNIT, "letterbox")
    assert of(author="another").normalise is None
    for task in ("segment", "depth"):
        with pytest.raises(MismatchedArtifact, match=f"'{task}'"):
            of(task=task)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("Div", 255.0, NONE),
        ("Mul", 1 / 255, NONE),
        ("Sub", 123.675, NONE),
        ("Sub", 0.485, UNIT),
        ("Div", 2.0, None),
    ],
)
def test_own_arithmetic(tmp_path: Path, kind: str, value: float, expected: Any) -> None:
    """Behind a swap of the channels, beside a reader of the size."""

    class Normalising(Foreign):
        def node(self, op: str, *inputs: Any, **attributes: Any) -> str:
            if op == "Conv" and len(self._nodes) < 2:
                super().node("Shape", inputs[0])
                first = super().node("Gather", inputs[0], np.array([2, 1, 0]), axis=1)
                inputs = (super().node(kind, first, np.full((1, 3, 1, 1), value)), *inputs[1:])
            return super().node(op, *inputs, **attributes)

    found = known(tmp_path, Normalising(layout="nhwc"), preprocessor_config=PROCESSOR)
    assert found.normalise == (expected or IMAGENET)
    own = found.origins["normalise"] == "the graph normalises by itself"
    assert own == (expected is not None)


def test_a_plane_is_no_mean(tmp_path: Path) -> None:
    class Shifted(Foreign):
        def node(self, op: str, *inputs: Any, **attributes: Any) -> str:
            if op == "Conv" and not self._nodes:
                inputs = (super().node("Add", inputs[0], np.full((1, 3, *SIZE), 0.4)), *inputs[1:])
            return super().node(op, *inputs, **attributes)

    assert known(tmp_path, Shifted()).normalise is None


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", "1", '{"id2label": 3}', "\ud800"[:0] + "{"])
def test_odd_files_say_nothing(tmp_path: Path, text: str) -> None:
    found = known(tmp_path, config=text, preprocessor_config=text, pipeline=text)
    assert found.names is None
    assert found.normalise is None
    made = import_network(
        tmp_path / "theirs.onnx", tmp_path / "run", ImportConfig(classes=",".join(NAMES))
    )
    assert made.path.exists()


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffbackground\r\nred\r\n\r\nblue\r\n",
        "# three classes\nbackground\n red\nblue",
        "0 background\n1 red\n2 blue\n",
        "0: background\n1: red\n2: blue\n",
        "background, red,blue\n",
    ],
)
def test_lists_of_classes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.txt"
    path.write_text(text, newline="")
    assert read_classes(str(path)) == {"names": ["background", "red", "blue"]}


def test_numbers_in_names_stay(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("1 lane\n2 lanes\n")
    assert read_classes(str(path)) == {"names": ["1 lane", "2 lanes"]}


@pytest.mark.parametrize("name", ["data.yaml", "folder"])
def test_what_is_no_list_of_classes_is_no_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.yaml").write_text("names:\n  0: background\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError) as caught:
        read_classes(str(tmp_path / name))
    assert caught.value.hint
