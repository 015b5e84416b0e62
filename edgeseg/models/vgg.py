"""VGG16 as a feature extractor, with its two hidden dense layers turned into convolutions.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(ICLR 2015), configuration D; the dense layers as in Long, Shelhamer and Darrell (CVPR 2015),
section 3.1. Layer numbers are those of torchvision, so that its weights fit.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import CorruptArtifact, MismatchedArtifact, RuntimeMissing, UsageError

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """From float (N, in_channels, H, W) to the three maps that FCN-8s scores.

    Pooling rounds up, so no pixel at the right and lower rim is lost. ``forward`` returns pool3
    (256 channels, stride 8), pool4 (512, stride 16) and fc7 (``fc_width``, stride 32).

    Args:
        in_channels: Channels of the picture.
        fc_width: Channels of fc6 and fc7, 8…4096; 4096 in the paper, where they hold 119 of
            134 million parameters.
    """

    def __init__(self, in_channels: int = 3, fc_width: int = 4096) -> None:
        super().__init__()
        if not 8 <= fc_width <= 4096:
            raise UsageError(f"fcn8s: fc_width is from 8 to 4096, not {fc_width}")
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        self.pools: list[int] = []
        for stage in _STAGES:
            for channels in stage:
                layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
                in_channels = channels
            self.pools.append(len(layers))
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.fc6 = nn.Conv2d(in_channels, fc_width, 7, padding=3)
        self.fc7 = nn.Conv2d(fc_width, fc_width, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pooled = []
        features = picture
        for number, layer in enumerate(self.features):
            features = layer(features)
            if number in self.pools:
                pooled.append(features)
        hidden = self.dropout(torch.relu(self.fc6(pooled[4])))
        hidden = self.dropout(torch.relu(self.fc7(hidden)))
        return pooled[2], pooled[3], hidden


def load_imagenet(network: VGG16, path: Path) -> tuple[str, ...]:
    """Copy ImageNet weights of torchvision's ``vgg16`` into the convolutions.

    Args:
        network: Its input has 3 channels.
        path: safetensors of any float type with ``features.N.weight`` and ``features.N.bias``;
            further tensors (the classifier) are left aside.

    Returns:
        The names that were copied: all 26 of the convolutions.

    Raises:
        CorruptArtifact: Not safetensors.
        MismatchedArtifact: A tensor is missing or of another shape, or the input is not colour.
    """
    if network.in_channels != 3:
        raise MismatchedArtifact(
            f"{path}: ImageNet weights are for colour pictures, this network takes grey",
            mend="train with colour input, or without --weights",
        )
    found = _read_tensors(path)
    expected = {f"features.{name}": value for name, value in network.features.named_parameters()}
    with torch.no_grad():
        for name, parameter in expected.items():
            if name not in found or found[name].shape != parameter.shape:
                shape = tuple(found[name].shape) if name in found else "nothing"
                raise MismatchedArtifact(
                    f"{path}: expected {name} of shape {tuple(parameter.shape)}, found {shape}",
                    mend="use the weights of torchvision's vgg16 as safetensors",
                )
            parameter.copy_(found[name])
    return tuple(expected)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise RuntimeMissing(
            "reading weights needs safetensors, which is not installed",
            mend="pip install 'edgeseg[train]'",
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptArtifact(f"{path}: not readable as safetensors ({error})") from error
