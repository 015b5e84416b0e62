"""Networks as other tools export them, exact for a red disc (1) and a blue box (2) on noise."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = (48, 64)
NAMES = ("background", "red", "blue")
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

Head = Literal[
    "logits", "softmax", "log-softmax", "nhwc", "quarter", "half", "two", "sigmoid-2", "sigmoid-3",
    "logits-2", "binary", "binary-logit", "int64", "int64-channel", "int32", "uint8", "chw",
]  # fmt: skip
DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


@dataclass
class Foreign:
    """A network to write: how its input and its output look.

    It takes ``normalise``d RGB unless ``bgr``: ``imagenet``, ``unit`` or ``none`` (0…255).
    """

    head: Head = "logits"
    dtype: str = "float32"
    layout: str = "nchw"
    normalise: str = "imagenet"
    bgr: bool = False
    open_size: bool = False
    opset: int = 17
    batch: int | str = 1
    classes: tuple[int, ...] = (0, 1, 2)

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path

    def model(self) -> onnx.ModelProto:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        last = "input"
        if self.dtype == "uint8":
            last = self.node("Cast", last, to=TensorProto.FLOAT)
        if "n" not in self.layout:
            last = self.node("Unsqueeze", last, np.array([0]))
        if self.layout.endswith("hwc"):
            last = self.node("Transpose", last, perm=[0, 3, 1, 2])
        features, offsets, scores, heights = self.layers()
        features, offsets = self.of_input(features, offsets)
        last = self.node("Relu", self.node("Conv", last, features[:, :, None, None], offsets))
        last = self.node("Conv", last, scores[:, :, None, None], heights)
        outputs = self.outputs(last)
        shape = [
            {"n": self.batch, "c": 3, "h": "h" if self.open_size else SIZE[0],
             "w": "w" if self.open_size else SIZE[1]}[axis]
            for axis in self.layout
        ]  # fmt: skip
        graph = helper.make_graph(
            self._nodes,
            "main",
            [helper.make_tensor_value_info("input", DTYPES[self.dtype], shape)],
            [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
            self._weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )
        model.producer_name = "elsewhere"
        return onnx.shape_inference.infer_shapes(model)

    def layers(self) -> tuple[np.ndarray, ...]:
        """Kernel and bias of two 1×1 convolutions on RGB from 0 to 1, a ReLU between them.

        Background has 4 everywhere; red and blue ten times what the channel exceeds the others
        by, unless brightness or that contrast lies outside a narrow band, so that pictures that are
        fed in any other way are not recognised.
        """
        red, blue, mean = np.array([1, -0.5, -0.5]), np.array([-0.5, -0.5, 1]), np.full(3, 1 / 3)
        features = np.stack([red, blue, mean, -mean, -red, red, blue, -blue])
        offsets = np.array([0, 0, -0.47, 0.33, 0.69, -0.73, -0.69, 0.64])
        weights = [[0] * 8, [1, 0, -9, -9, -99, -99, 0, 0], [0, 1, -9, -9, 0, 0, -99, -99]]
        scores = 10.0 * np.array(weights)
        return features, offsets, scores[list(self.classes)], np.array([4.0, 0, 0])[[*self.classes]]

    def of_input(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first convolution for the input's normalisation and order of channels."""
        if self.normalise == "imagenet":
            kernel, bias = kernel * STD, bias + kernel @ MEAN
        elif self.normalise == "none":
            kernel = kernel / 255
        return (kernel[:, ::-1] if self.bgr else kernel), bias

    def scores_of(self, image: np.ndarray) -> np.ndarray:
        """Scores float64 (classes, H, W) of a picture uint8 (H, W, 3) BGR, by NumPy alone."""
        features, offsets, scores, heights = self.layers()
        hidden = np.maximum(image[:, :, ::-1] / 255 @ features.T + offsets, 0)
        return (hidden @ scores.T + heights).transpose(2, 0, 1)

    def outputs(self, scores: str) -> dict[str, int]:
        """Add the head; returns the outputs and their types."""
        kind = TensorProto.FLOAT16 if self.dtype == "float16" else TensorProto.FLOAT
        head = self.head
        if head == "two":
            pooled = self.node("AveragePool", scores, kernel_shape=[4, 4], strides=[4, 4])
            return {self.called(pooled, "aux"): kind, self.called(scores, "out"): kind}
        if head in ("int64", "int64-channel", "int32", "uint8"):
            keep = int(head == "int64-channel")
            labels = self.node("ArgMax", scores, axis=1, keepdims=keep)
            if head in ("int32", "uint8"):
                to = TensorProto.INT32 if head == "int32" else TensorProto.UINT8
                return {self.called(self.node("Cast", labels, to=to), "labels"): to}
            return {self.called(labels, "seg"): TensorProto.INT64}
        if head in ("softmax", "log-softmax"):
            scores = self.node("Softmax" if head == "softmax" else "LogSoftmax", scores, axis=1)
        if head in ("sigmoid-2", "sigmoid-3", "logits-2", "binary", "binary-logit"):
            scores = self.independent(scores)
        if head in ("sigmoid-2", "sigmoid-3", "binary"):
            scores = self.node("Sigmoid", scores)
        if head == "nhwc":
            scores = self.node("Transpose", scores, perm=[0, 2, 3, 1])
        if head == "chw":
            scores = self.node("Squeeze", scores, np.array([0]))
        if head == "quarter":
            scores = self.node("AveragePool", scores, kernel_shape=[4, 4], strides=[4, 4])
        if head == "half":
            scores = self.node("Resize", scores, "", np.array([1, 1, 0.5, 0.5]), mode="linear")
        return {self.called(scores, "scores"): kind}

    def independent(self, scores: str) -> str:
        """Red, blue or both against the background, so that 0 is as likely as not."""
        first = 0 if self.head == "sigmoid-3" else 1
        last = 2 if self.head.startswith("binary") else 3
        parts = self.node("Slice", scores, np.array([first]), np.array([last]), np.array([1]))
        return self.node("Sub", parts, np.full((1, last - first, 1, 1), 4.0))

    def node(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Add a node whose arrays become weights; returns the name of its output."""
        names = []
        for value in inputs:
            if isinstance(value, np.ndarray):
                half = np.float16 if self.dtype == "float16" else np.float32
                stored = value.astype(np.int64 if value.dtype.kind == "i" else half)
                self._weights.append(numpy_helper.from_array(stored, f"w{len(self._weights)}"))
                names.append(self._weights[-1].name)
            else:
                names.append(value)
        output = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def called(self, tensor: str, name: str) -> str:
        self._nodes.append(helper.make_node("Identity", [tensor], [name]))
        return name


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (H, W, 3) BGR and its mask."""
    random = np.random.default_rng(seed)
    height, width = SIZE
    grey = random.integers(60, 200, (height, width), np.uint8)
    image, mask = np.stack([grey] * 3, axis=-1), np.zeros(SIZE, np.uint8)
    centre = int(random.integers(14, 26)), int(random.integers(14, height - 14))
    cv2.circle(image, centre, 9, (40, 40, 220), -1)
    cv2.circle(mask, centre, 9, 1, -1)
    left, top = int(random.integers(36, 44)), int(random.integers(4, 24))
    cv2.rectangle(image, (left, top), (left + 15, top + 12), (220, 60, 40), -1)
    cv2.rectangle(mask, (left, top), (left + 15, top + 12), 2, -1)
    return image, mask


def dataset(root: Path, count: int = 4, names: tuple[str, ...] = NAMES) -> Path:
    """A data set of such pictures, as a validation split."""
    for part in ("images", "masks"):
        (root / "val" / part).mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        image, mask = picture(seed)
        if len(names) == 2:
            mask[mask == 2] = 0
        cv2.imwrite(str(root / "val" / "images" / f"{seed}.png"), image)
        cv2.imwrite(str(root / "val" / "masks" / f"{seed}.png"), mask)
    (root / "classes.json").write_text(json.dumps({"names": names}))
    return root
