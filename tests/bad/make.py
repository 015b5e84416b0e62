"""Write the defective inputs beside this file, each named by its defect.

Run once with ``python tests/bad/make.py``; the results are committed, so that a later change
of the library cannot quietly make them harmless.
"""

import json
import os
import pickle
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from edgeseg import models
from edgeseg.artifacts import sidecar
from edgeseg.artifacts.card import CARD_KEY, ModelCard
from edgeseg.artifacts.files import sha256_bytes

HERE = Path(__file__).parent
NOISE = random.Random(0)
CARD = ModelCard.model_validate(
    {
        "name": "bad",
        "arch": "unet-lite",
        "options": {"width": 8, "depth": 1},
        "classes": {"names": ["background", "nucleus"]},
        "input": {"height": 32, "width": 32},
        "created": "2026-01-01T00:00:00Z",
    }
)


def main() -> None:
    for kind in (pictures, datasets, checkpoints, networks, engines, videos, ranges):
        folder = kind.__name__
        shutil.rmtree(HERE / folder, ignore_errors=True)
        (HERE / folder).mkdir()
        kind()


def pictures() -> None:
    good = png(picture())
    write("pictures/empty.png", b"")
    write("pictures/truncated.png", good[: len(good) // 2])
    write("pictures/text-named.png", b"this is no picture\n")
    write("pictures/random-bytes.jpg", NOISE.randbytes(2000))


def datasets() -> None:
    dataset("no-pictures", {}, {})
    dataset("mask-missing", {"a": picture(), "b": picture()}, {"a": mask()})
    dataset("picture-missing", {"a": picture()}, {"a": mask(), "b": mask()})
    dataset("mask-size-differs", {"a": picture()}, {"a": mask()[:20]})
    dataset("mask-value-17-of-2-classes", {"a": picture()}, {"a": np.where(mask(), 17, 0)})
    dataset("mask-all-ignored", {"a": picture()}, {"a": np.full((32, 32), 255)})
    dataset("mask-in-colour", {"a": picture()}, {"a": picture()})
    dataset("mask-truncated", {"a": picture()}, {"a": mask()})
    truncated = HERE / "datasets/mask-truncated/val/masks/a.png"
    truncated.write_bytes(truncated.read_bytes()[:-30])
    dataset("classes-not-json", {"a": picture()}, {"a": mask()})
    write("datasets/classes-not-json/classes.json", b"names: [background, nucleus]\n")
    dataset("classes-repeat", {"a": picture()}, {"a": mask()})
    write("datasets/classes-repeat/classes.json", b'{"names": ["a", "a"]}\n')


def checkpoints() -> None:
    torch.manual_seed(0)
    model = models.build("unet-lite", 2, width=8, depth=1)
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    good = HERE / "checkpoints/good.safetensors"
    save_file(tensors, good, {CARD_KEY: CARD.to_json()})
    data = good.read_bytes()
    write("checkpoints/empty.safetensors", b"")
    write("checkpoints/truncated.safetensors", data[: len(data) // 2])
    write("checkpoints/random-bytes.safetensors", NOISE.randbytes(5000))
    save_file(tensors, HERE / "checkpoints/no-card.safetensors")
    later = CARD.to_json().replace('"schema_version":1', '"schema_version":99')
    save_file(tensors, HERE / "checkpoints/card-of-schema-99.safetensors", {CARD_KEY: later})
    three = json.loads(CARD.to_json())
    three["classes"] = {"names": ["a", "b", "c"]}
    save_file(
        tensors,
        HERE / "checkpoints/card-of-3-classes-weights-of-2.safetensors",
        {CARD_KEY: json.dumps(three)},
    )
    unknown = CARD.to_json().replace("unet-lite", "unet-lyte")
    save_file(tensors, HERE / "checkpoints/unknown-architecture.safetensors", {CARD_KEY: unknown})
    first = next(iter(tensors))
    save_file(
        {key: value for key, value in tensors.items() if key != first},
        HERE / "checkpoints/one-tensor-missing.safetensors",
        {CARD_KEY: CARD.to_json()},
    )
    poisoned = tensors | {first: torch.full_like(tensors[first], float("nan"))}
    save_file(poisoned, HERE / "checkpoints/nan-weights.safetensors", {CARD_KEY: CARD.to_json()})
    write("checkpoints/pickle-that-executes.pt", pickle.dumps(Executes()))
    good.unlink()


class Executes:
    """Unpickling this creates the file ``pwned`` in the current folder."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def networks() -> None:
    good = network().SerializeToString()
    write("networks/empty.onnx", b"")
    write("networks/truncated.onnx", good[: len(good) // 2])
    write("networks/random-bytes.onnx", NOISE.randbytes(5000))
    write("networks/no-card.onnx", network(card=None).SerializeToString())
    later = CARD.to_json().replace('"schema_version":1', '"schema_version":99')
    write("networks/card-of-schema-99.onnx", network(card=later).SerializeToString())
    taller = CARD.model_copy(update={"input": CARD.input.model_copy(update={"height": 64})})
    write("networks/card-of-another-size.onnx", network(card=taller.to_json()).SerializeToString())
    flipped = bytearray(good)
    flipped[good.index(b"weight") + 40] ^= 1
    write("networks/one-bit-flipped.onnx", bytes(flipped))
    vouch("networks/one-bit-flipped.onnx", good)
    outside = network()
    weight = outside.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../../../etc/hostname")
    write("networks/external-data-outside.onnx", outside.SerializeToString())


def network(card: str | None = CARD.to_json()) -> onnx.ModelProto:
    """1×1 convolution → argmax → uint8."""
    weight = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3, 1, 1)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["logits"]),
            helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0),
            helper.make_node("Cast", ["ids"], ["labels"], to=TensorProto.UINT8),
        ],
        "bad",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, 32, 32])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if card is not None:
        helper.set_model_props(model, {CARD_KEY: card})
    return model


def engines() -> None:
    good = b"vtrt" + NOISE.randbytes(3000)
    write("engines/empty.engine", b"")
    write("engines/no-side-car.engine", good)
    write("engines/one-bit-flipped.engine", good[:-1] + bytes([good[-1] ^ 1]))
    vouch("engines/one-bit-flipped.engine", good, runtime="tensorrt-rtx")
    write("engines/side-car-not-json.engine", good)
    write("engines/side-car-not-json.engine.json", b"engine: yes\n")


def videos() -> None:
    write("videos/empty.mkv", b"")
    write("videos/text-named.mp4", b"this is no video\n")
    path = str(HERE / "videos/truncated.mkv")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for shade in range(50):
        writer.write(np.full((48, 64, 3), shade * 5, np.uint8))
    writer.release()
    data = Path(path).read_bytes()
    write("videos/truncated.mkv", data[: len(data) // 2])


def ranges() -> None:
    write("ranges/empty.json", b"")
    write("ranges/not-json.json", b"ranges: none\n")
    write("ranges/truncated.json", b'{"schema_version": 1, "ranges": {"image": [-2.1, 2.6')


def dataset(name: str, images: dict[str, np.ndarray], masks: dict[str, np.ndarray]) -> None:
    """Both splits of ``datasets/NAME``, alike; an empty folder keeps a hidden file for git."""
    for split in ("train", "val"):
        for part, files in (("images", images), ("masks", masks)):
            folder = HERE / "datasets" / name / split / part
            folder.mkdir(parents=True)
            if not files:
                (folder / ".keep").touch()
            for stem, array in files.items():
                (folder / f"{stem}.png").write_bytes(png(array.astype(np.uint8)))


def picture() -> np.ndarray:
    ramp = np.arange(32, dtype=np.uint8) * 8
    return np.dstack([np.tile(ramp, (32, 1)), np.tile(ramp[:, None], (1, 32)), np.eye(32) * 255])


def mask() -> np.ndarray:
    return np.triu(np.ones((32, 32), np.uint8))


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array.astype(np.uint8))[1].tobytes()


def vouch(name: str, data: bytes, runtime: str = "onnxruntime") -> None:
    """A side-car for the artefact ``name`` as if its bytes were ``data``."""
    car = sidecar.SideCar.model_validate(
        {
            "artifact_sha256": sha256_bytes(data),
            "card": CARD,
            "runtime": runtime,
            "runtime_version": "1.0",
            "created": "2026-01-01T00:00:00Z",
        }
    )
    write(name + ".json", car.to_json(indent=2).encode())


def write(name: str, data: bytes) -> None:
    (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
