"""What is known of a network besides its weights: files beside it, metadata, its first nodes.

* Hugging Face: ``config.json`` (``id2label``) and ``preprocessor_config.json`` of
  ``save_pretrained`` and of Optimum's export;
* segmentation_models.pytorch: ``config.json`` of ``save_pretrained`` (the encoder's weights);
* mmdeploy: ``deploy.json`` (the task) and ``pipeline.json`` (the transforms);
* ``metadata_props`` of the ONNX file: ``imgsz``, ``task`` and ``author`` as Ultralytics writes
  them, and the names of classes under ``names``, ``classes``, ``class_names``, ``labels`` or
  ``id2label``; a single name is that of what is not the background;
* arithmetic in front of the first layer: the network normalises by itself.
"""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from edgeseg.artifacts.card import Color, Resize
from edgeseg.artifacts.files import is_file, read_capped
from edgeseg.errors import EdgesegError, MismatchedArtifact
from edgeseg.importing.options import IMAGENET, NONE, UNIT, Normalise
from edgeseg.importing.reading import Original, attempt

logger = logging.getLogger(__name__)

_OTHER_TASKS = ("detect", "segment", "pose", "obb", "classify", "depth", "Detector", "Classifier")
# What leaves grey levels as they are; a swap of channels is a Gather, a Slice or a Split.
_MOVING = frozenset(
    {"Identity", "Cast", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "Gather", "Slice", "Split",
     "Concat"}
)  # fmt: skip
_NAME_KEYS = ("names", "classes", "class_names", "labels", "id2label")
_LONGEST = 1 << 16  # characters of a name list in metadata


@dataclass(frozen=True)
class Known:
    """What is known of a network; None where nothing says it.

    ``origins`` says where each field is known from.
    """

    names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    color: Color | None = None
    normalise: Normalise | None = None
    resize: Resize | None = None
    origins: dict[str, str] = field(default_factory=dict)

    def then(self, origin: str, **values: Any) -> Known:
        """Add values that are not None to fields that are not known yet."""
        new = {k: v for k, v in values.items() if v is not None and getattr(self, k) is None}
        if len(new.get("names", ())) == 1:
            new["names"] = ("background", *new["names"])
        return replace(self, **new, origins=self.origins | dict.fromkeys(new, origin))


def known_of(original: Original) -> Known:
    """Collect what is known of a network; the surest source of each field wins.

    Raises:
        MismatchedArtifact: A file or the metadata says that its task is another.
    """
    folder = original.path.parent
    own = attempt(original.path, "reading its weights", lambda: _own_arithmetic(original.model))
    known = Known().then("the graph normalises by itself", normalise=own)
    for name, reader in (
        ("preprocessor_config.json", _of_processor),
        ("pipeline.json", _of_pipeline),
        ("config.json", _of_config),
    ):
        content = _json(folder / name)
        if content is not None:
            known = known.then(f"from {name}", **reader(content))
    _refuse_task(original.path, _at(_json(folder / "deploy.json"), "task", str), "deploy.json")
    _refuse_task(original.path, original.metadata.get("task"), "its metadata")
    return known.then("from its metadata", **_of_metadata(original.metadata))


def _refuse_task(path: Path, task: str | None, origin: str) -> None:
    if task in _OTHER_TASKS:
        raise MismatchedArtifact(
            f"{path}: expected a network for semantic segmentation, {origin} says that its task "
            f"is {task!r}",
            hint="import a network that scores each class in each pixel, such as DeepLabV3, "
            "SegFormer or U-Net",
        )


def _json(path: Path) -> Any:
    """The content of a JSON file beside the network; None if there is none that can be read."""
    if not is_file(path):
        return None
    try:
        return json.loads(read_capped(path))
    except (EdgesegError, ValueError, RecursionError) as error:
        logger.warning("%s is ignored: %s", path, error)
        return None


def _at(content: Any, key: str, kind: type) -> Any:
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, kind) else None


def _of_processor(content: Any) -> dict[str, Any]:
    """``preprocessor_config.json`` of Hugging Face: stretched where it names both sides.

    MobileViT's swaps RGB to BGR and does not normalise; it may name a mean, and leaves
    ``do_normalize`` out.
    """
    swapped = _at(content, "do_flip_channel_order", bool) is True
    cropped = _at(content, "do_center_crop", bool) is True
    size = _at(content, "crop_size" if cropped else "size", dict)
    height, width = _at(size, "height", int), _at(size, "width", int)
    sized = height and width and (cropped or _at(content, "do_resize", bool) is not False)
    found: dict[str, Any] = {
        "color": "bgr" if swapped else "rgb",
        "size": (height, width) if sized else None,
        "resize": "stretch" if sized and not cropped else None,
    }
    rescaled = _at(content, "do_rescale", bool) is not False
    factor = (_at(content, "rescale_factor", float) or 1 / 255) if rescaled else 1.0
    normalised = _at(content, "do_normalize", bool)
    if normalised is False or (normalised is None and swapped):
        unit = abs(factor * 255 - 1) < 1e-3
        return found | {"normalise": UNIT if unit else NONE if factor == 1 else None}
    mean, std = (
        _numbers(_at(content, "image_mean", list)),
        _numbers(_at(content, "image_std", list)),
    )
    return found | {"normalise": _normalise(factor, mean, std)}


def _normalise(scale: float, mean: Any, std: Any) -> Normalise | None:
    if mean is None or std is None or len(mean) != len(std) or min(std) <= 0:
        return None
    close = np.allclose(mean, IMAGENET.mean, atol=2e-3) if len(mean) == 3 else False
    if close and np.allclose(std, IMAGENET.std, atol=2e-3) and abs(scale * 255 - 1) < 1e-3:
        return IMAGENET
    name = "/".join(",".join(f"{value:g}" for value in values) for values in (mean, std))
    return Normalise(name, scale, mean, std)


def _numbers(values: Any) -> tuple[float, ...] | None:
    sound = isinstance(values, list) and len(values) in (1, 3)
    if not sound or not all(isinstance(value, (int, float)) for value in values):
        return None
    numbers = tuple(float(value) for value in values)
    return numbers if np.isfinite(numbers).all() else None


def _of_config(content: Any) -> dict[str, Any]:
    """``config.json`` of Hugging Face (names) or of segmentation_models.pytorch (encoder)."""
    if _at(content, "encoder_name", str) is not None:
        trained = _at(content, "encoder_weights", str) == "imagenet"
        return {"color": "rgb", "normalise": IMAGENET} if trained else {}
    labels = _at(content, "id2label", dict)
    return {"names": _ordered(labels) if labels else None}


def _ordered(labels: dict[Any, Any]) -> tuple[str, ...] | None:
    """Names in the order of their ids; None unless the ids count up from 0."""
    try:
        by_id = {int(key): str(value) for key, value in labels.items()}
    except (TypeError, ValueError):
        return None
    return (
        tuple(by_id[i] for i in range(len(by_id))) if set(by_id) == set(range(len(by_id))) else None
    )


def _of_pipeline(content: Any) -> dict[str, Any]:
    """``pipeline.json`` of mmdeploy: ``Normalize`` is in grey levels."""
    found: dict[str, Any] = {}
    for step in _steps(content):
        kind = _at(step, "type", str)
        if kind == "Normalize":
            mean, std = _numbers(_at(step, "mean", list)), _numbers(_at(step, "std", list))
            found["color"] = "bgr" if _at(step, "to_rgb", bool) is False else "rgb"
            found["normalise"] = _normalise(1.0, mean, std)
        elif kind == "Resize":
            found["resize"] = "letterbox" if _at(step, "keep_ratio", bool) else "stretch"
    return found


def _steps(content: Any) -> Iterator[Any]:
    tasks = _at(_at(content, "pipeline", dict), "tasks", list) or []
    for task in tasks:
        yield from _at(task, "transforms", list) or []


def _of_metadata(metadata: dict[str, str]) -> dict[str, Any]:
    """Class names under usual keys, and what Ultralytics writes; it feeds RGB from 0 to 1."""
    lists = (_listed(metadata.get(key, "")) for key in _NAME_KEYS)
    listed = next(filter(None, lists), None)
    size = _literal(metadata.get("imgsz", ""))
    sound = isinstance(size, (list, tuple)) and len(size) == 2
    sized = sound and all(isinstance(side, int) for side in size)
    found: dict[str, Any] = {"names": listed, "size": tuple(size) if sized else None}
    if metadata.get("author") == "Ultralytics":
        found |= {"color": "rgb", "normalise": UNIT, "resize": "letterbox"}
    return found


def _listed(text: str) -> tuple[str, ...] | None:
    """Names from a list or a dictionary of ids, in Python or JSON, or from ``a,b,c`` or lines."""
    value = _literal(text.strip())
    if isinstance(value, dict):
        return _ordered(value)
    if isinstance(value, (list, tuple)):
        return tuple(map(str, value))
    parts = [part.strip() for part in text.strip().replace("\n", ",").split(",")]
    return tuple(parts) if len(parts) > 1 and all(parts) else None


def _literal(text: str) -> Any:
    if not text or len(text) > _LONGEST:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _own_arithmetic(model: ModelProto) -> Normalise | None:
    """The range that the network normalises by itself: 0…255 or 0…1; None if it does not."""
    constants = {w.name: w for w in model.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value"
    }
    node, name = _first(model, [v.name for v in model.graph.input if v.name not in constants])
    if node is None:
        return None
    others = [constants[other] for other in node.input if other != name and other in constants]
    # A mean or a factor is one number, or one for each channel; a plane is something else.
    if len(others) != 1 or int(np.prod(others[0].dims)) > 3:
        return None
    value = float(np.abs(numpy_helper.to_array(others[0]).astype(np.float64)).max(initial=0))
    if (node.op_type == "Div" and value > 100) or (node.op_type == "Mul" and 0 < value < 0.02):
        return NONE
    if node.op_type in ("Sub", "Add"):
        return NONE if value > 2 else UNIT if value > 0.05 else None
    return None


def _first(model: ModelProto, inputs: list[str]) -> tuple[NodeProto | None, str]:
    """The first node that computes with the picture, and the name under which it reads it."""
    name = inputs[0] if inputs else ""
    for _ in model.graph.node:
        readers = [n for n in model.graph.node if name in n.input and n.op_type != "Shape"]
        if len({node.op_type for node in readers}) != 1:
            return None, name
        if readers[0].op_type not in _MOVING:
            return readers[0], name
        name = readers[0].output[0]
    return None, name
