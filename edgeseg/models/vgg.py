"""VGG16 as a feature extractor, with its two hidden dense layers turned into convolutions.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(ICLR 2015), configuration D; the dense layers as in Long, Shelhamer and Darrell (CVPR 2015),
section 3.1. Layer numbers are those of torchvision, so that its weights fit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgeseg.errors import UsageError
from edgeseg.models.layers import PaddedConv2d

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_WINDOW = 7  # Height and width of the map that the first dense layer sees.


class VGG16(nn.Module):
    """VGG16 backbone: float (N, in_channels, H, W) to the three maps that an FCN scores.

    Pooling rounds up, so no pixel at the right and bottom edge is lost. ``forward`` returns pool3
    (256 channels, stride 8), pool4 (512, stride 16) and fc7 (``fc_width``, stride 32).

    Args:
        fc_width: Channels of fc6 and fc7, 8…4096; 4096 in the paper, where they hold 119 of
            134 million parameters.
        dropout: Dropout probability after fc6 and fc7, 0 ≤ dropout < 1.

    Raises:
        UsageError: An option is out of range.
    """

    def __init__(self, in_channels: int = 3, fc_width: int = 4096, *, dropout: float = 0.5) -> None:
        super().__init__()
        if not 8 <= fc_width <= 4096:
            raise UsageError(f"VGG16: fc_width is from 8 to 4096, not {fc_width}")
        if not 0 <= dropout < 1:
            raise UsageError(f"VGG16: dropout is from 0 up to but not including 1, not {dropout}")
        self.in_channels = in_channels
        self.fc_width = fc_width
        layers: list[nn.Module] = []
        self.pools: list[int] = []
        for stage in _STAGES:
            for channels in stage:
                layers += [PaddedConv2d(in_channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
                in_channels = channels
            self.pools.append(len(layers))
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.fc6 = PaddedConv2d(in_channels, fc_width, _WINDOW, padding=_WINDOW // 2)
        self.fc7 = nn.Conv2d(fc_width, fc_width, 1)
        self.dropout = nn.Dropout(dropout)

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


def convolutionalise(tensors: Mapping[str, Tensor], fc_width: int) -> dict[str, Tensor]:
    """Convert weights of torchvision's ``vgg16`` to the names and shapes of :class:`VGG16`.

    A dense layer over a 7×7 map equals a convolution with a kernel of that size. The last layer,
    ``classifier.6``, scores ImageNet's classes and is discarded, as in the paper (section 4.1).

    If there are more than ``fc_width`` channels, evenly spaced ones are kept, as Chen et al.,
    "DeepLab" (ICLR 2015), section 3.1, and Liu et al., "SSD" (ECCV 2016), section 3.1, did for 1024
    channels. Such a network is a starting point for training, not a classifier.

    Args:
        tensors: ``features.N.weight`` and ``features.N.bias``, and, if it has its dense layers,
            ``classifier.{0,3}.weight`` (outputs, inputs) and ``classifier.{0,3}.bias``.
        fc_width: Number of channels of fc6 and fc7.

    Returns:
        ``features.*`` unchanged; ``fc6.*`` and ``fc7.*`` if both dense layers are complete. The
        caller must compare their shapes with the network's.
    """
    converted = {name: value for name, value in tensors.items() if name.startswith("features.")}
    dense = [f"classifier.{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")]
    if not all(name in tensors for name in dense):
        return converted
    weight6, bias6, weight7, bias7 = (tensors[name] for name in dense)
    kept = torch.arange(fc_width) * len(bias6) // fc_width
    if fc_width > len(bias6):
        kept = torch.arange(len(bias6))
    return converted | {
        "fc6.weight": weight6[kept].unflatten(1, (-1, _WINDOW, _WINDOW)),
        "fc6.bias": bias6[kept],
        "fc7.weight": weight7[kept][:, kept, None, None],
        "fc7.bias": bias7[kept],
    }
