"""Export segmentation networks of other libraries, as their users do.

    python networks.py OUT --data NUCLEI [NAME…]

Runs in the environment of ``requirements.txt``, without edgeseg. Networks start from seeded random
weights, as nothing is downloaded; those in ``TRAINED`` are trained on the nuclei first, each with a
preprocessing of its own; the others only settle the statistics of their BatchNorm, so that their
activations have a sane scale.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

HEIGHT, WIDTH = 128, 160
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = ("background", "nucleus")


@dataclass(frozen=True)
class Feed:
    """How pictures become tensors: grey levels from 0 to 1, less ``mean``, through ``std``.

    ``steps`` is the length of the training.
    """

    color: str = "rgb"
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    resize: str = "stretch"
    steps: int = 200


TRAINED = {
    "smp-unet-mobilenetv3": Feed(),
    "torchvision-lraspp": Feed("bgr", (0.0,) * 3, (1.0,) * 3, "letterbox", steps=500),
    "smp-deeplabv3plus-resnet18": Feed("bgr", (0.5,) * 3, (0.5,) * 3),
}


def smp(kind: str, encoder: str) -> nn.Module:
    """A network of segmentation_models.pytorch."""
    import segmentation_models_pytorch

    model: nn.Module = segmentation_models_pytorch.create_model(
        kind, encoder_name=encoder, encoder_weights=None, classes=2
    )
    return model


def torchvision(name: str, **options: Any) -> nn.Module:
    """A network of torchvision, whose output is a dictionary."""
    from torchvision.models import segmentation

    build = getattr(segmentation, name)
    model: nn.Module = build(weights=None, weights_backbone=None, num_classes=2, **options)
    return model


def segformer() -> nn.Module:
    """SegFormer-B0 of Hugging Face, whose logits have a quarter of the size."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    labels = dict(enumerate(NAMES))
    config = SegformerConfig(num_labels=2, id2label=labels)
    model: nn.Module = SegformerForSemanticSegmentation(config)
    return model


class ChannelsLast(nn.Module):
    """A network as TensorFlow lays it out: (N, H, W, C) in grey levels, normalised inside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        """Grey levels float32 (N, H, W, 3) → softmax (N, H, W, K)."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        picture = (image.permute(0, 3, 1, 2) / 255 - mean) / std
        scores: Tensor = self.inner(picture)
        return scores.softmax(1).permute(0, 2, 3, 1)


class LabelMap(nn.Module):
    """A network as mmdeploy exports it: int64 labels with a channel."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) → labels int64 (N, 1, H, W)."""
        logits: Tensor = self.inner(image)["out"]
        return logits.argmax(1, keepdim=True)


BUILD: dict[str, Callable[[], nn.Module]] = {
    "smp-unet-mobilenetv3": lambda: smp("unet", "timm-mobilenetv3_small_100"),
    "smp-deeplabv3plus-resnet18": lambda: smp("deeplabv3plus", "resnet18"),
    "torchvision-lraspp": lambda: torchvision("lraspp_mobilenet_v3_large"),
    "torchvision-deeplabv3-aux": lambda: torchvision("deeplabv3_mobilenet_v3_large", aux_loss=True),
    "transformers-segformer-b0": segformer,
    "nhwc-unet": lambda: ChannelsLast(smp("unet", "resnet18")),
    "mmdeploy-lraspp": lambda: LabelMap(torchvision("lraspp_mobilenet_v3_large")),
}


def main() -> None:
    """Build, train or settle, and export each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=list(BUILD))
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    for name in options.names:
        pictures, masks = nuclei(options.data / "train", TRAINED.get(name, Feed()))
        torch.manual_seed(0)
        model = BUILD[name]()
        if name in TRAINED:
            train(model, pictures, masks, TRAINED[name].steps)
        else:
            settle(model, pictures)
        export(name, model.eval(), options.out / name)
        print(name, "exported", file=sys.stderr)


def nuclei(split: Path, feed: Feed) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, H, W) as the network is fed, and masks (N, H, W), 255 on a letterbox."""
    pictures, masks = [], []
    for path in sorted((split / "images").iterdir()):
        image = Image.open(path).convert("RGB")
        found = Image.open(next((split / "instances").glob(f"{path.stem}.*")))
        left, top, width, height = place(image.width, image.height, feed)
        rows, columns = slice(top, top + height), slice(left, left + width)
        picture, mask = np.zeros((HEIGHT, WIDTH, 3)), np.full((HEIGHT, WIDTH), 255)
        levels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) / 255
        order = (levels[..., ::-1] if feed.color == "bgr" else levels) - feed.mean
        picture[rows, columns] = order / feed.std
        mask[rows, columns] = np.asarray(found.resize((width, height), 0)) > 0
        pictures.append(picture)
        masks.append(mask)
    stacked = np.stack(pictures).transpose(0, 3, 1, 2).astype(np.float32)
    return torch.from_numpy(stacked), torch.from_numpy(np.stack(masks)).long()


def place(width: int, height: int, feed: Feed) -> tuple[int, int, int, int]:
    """Left, top, width and height of a picture in the input."""
    if feed.resize == "stretch":
        return 0, 0, WIDTH, HEIGHT
    scale = min(HEIGHT / height, WIDTH / width)
    width, height = round(width * scale), round(height * scale)
    return (WIDTH - width) // 2, (HEIGHT - height) // 2, width, height


def scores(model: nn.Module, batch: Tensor) -> Tensor:
    """Logits at the size of the pictures."""
    output = model(batch)
    found = output["out"] if isinstance(output, dict) else output
    return functional.interpolate(found, batch.shape[-2:], mode="bilinear", align_corners=False)


def train(model: nn.Module, pictures: Tensor, masks: Tensor, steps: int) -> None:
    """Train with AdamW and one cycle on batches of four, flipped at random."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):  # torchvision's 0.01 is for long trainings
            layer.momentum = max(layer.momentum or 0.0, 0.1)
    for _ in range(steps):
        chosen = torch.randint(len(pictures), (4,))
        axes = [axis for axis in (-1, -2) if torch.rand(()) < 0.5]
        batch, truth = (values[chosen].flip(axes) for values in (pictures, masks))
        loss = functional.cross_entropy(scores(model, batch), truth, ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    print("loss", loss.item(), file=sys.stderr)


def settle(model: nn.Module, pictures: Tensor) -> None:
    """Let BatchNorm see pictures, and leave the weights as they are."""
    inner = getattr(model, "inner", model)
    inner.train()
    with torch.no_grad():
        for start in range(0, 16, 4):
            inner(pictures[start : start + 4])


def export(name: str, model: Any, folder: Path) -> None:
    """Write ``model.onnx`` and the files that the library leaves beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (1, HEIGHT, WIDTH, 3) if name.startswith("nhwc") else (1, 3, HEIGHT, WIDTH)
    path = folder / f"{name}.onnx"
    options: dict[str, Any] = {"dynamo": True, "external_data": False}
    if name == "mmdeploy-lraspp":  # as mmdeploy does
        options = {"dynamo": False, "opset_version": 11, "output_names": ["output"]}
        options["input_names"] = ["input"]
    torch.onnx.export(model, (torch.zeros(shape),), str(path), verbose=False, **options)
    if name.startswith("transformers"):
        from transformers import SegformerImageProcessor

        model.config.save_pretrained(folder)
        size = {"height": HEIGHT, "width": WIDTH}
        try:
            SegformerImageProcessor(size=size).save_pretrained(folder)
        except ImportError:  # newer versions need torchvision's transforms for it
            document = {"image_mean": MEAN, "image_std": STD, "size": size}
            (folder / "preprocessor_config.json").write_text(json.dumps(document))
    if name.startswith("mmdeploy"):
        write_mmdeploy(folder)


def write_mmdeploy(folder: Path) -> None:
    """``deploy.json`` and ``pipeline.json`` in mmdeploy's form."""
    levels = {"mean": [255 * m for m in MEAN], "std": [255 * s for s in STD], "to_rgb": True}
    transforms = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "keep_ratio": False, "size": [HEIGHT, WIDTH]},
        {"type": "Normalize", **levels},
        {"type": "DefaultFormatBundle"},
    ]
    task = {"type": "Task", "module": "Transform", "transforms": transforms}
    (folder / "pipeline.json").write_text(json.dumps({"pipeline": {"tasks": [task]}}))
    models = [{"name": "lraspp", "net": "end2end.onnx", "batch": 1, "precision": "FP32"}]
    (folder / "deploy.json").write_text(json.dumps({"task": "Segmentor", "models": models}))


if __name__ == "__main__":
    main()
