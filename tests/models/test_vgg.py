"""VGG16 made of convolutions against the classifier it comes from, and the order of its layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import UsageError
from edgeseg.models.vgg import VGG16, convolutionalise

RECEPTIVE_FIELD = 404
"""Of fc6, in pixels: what its 7×7 cells of pool5 see through 13 convolutions and 5 poolings."""


class Classifier(nn.Module):
    """VGG16 as published, its tensors named as torchvision names them.

    Configuration D of Simonyan and Zisserman (2015), table 1; ``padding=0`` and pictures of 404
    instead of 224 give the same 7×7 map for the dense layers, without a value that is padding.
    """

    def __init__(self, width: int, classes: int, padding: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for convolutions, channels in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, channels, 3, padding=padding), nn.ReLU()]
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        hidden = [nn.ReLU(), nn.Dropout()]
        dense = (nn.Linear(512 * 7 * 7, width), nn.Linear(width, width), nn.Linear(width, classes))
        self.classifier = nn.Sequential(dense[0], *hidden, dense[1], *hidden, dense[2])

    def forward(self, picture: Tensor) -> Tensor:
        answer: Tensor = self.classifier(self.features(picture).flatten(1))
        return answer


def random_classifier(width: int, classes: int, padding: int = 1) -> Classifier:
    """With random weights that keep the scale from layer to layer."""
    torch.manual_seed(0)
    with torch.device("meta"):  # Without the default initialisation of 100 million weights.
        network = Classifier(width, classes, padding)
    network.to_empty(device="cpu")
    for name, parameter in network.named_parameters():
        limit = 0.1 if name.endswith("bias") else (6 / parameter[0].numel()) ** 0.5
        nn.init.uniform_(parameter, -limit, limit)
    return network.eval()


def dense_scores(classifier: Classifier, picture: Tensor, width: int) -> Tensor:
    """The answers of the classifier at every cell of stride 32: (N, classes, H/32, W/32)."""
    tensors = classifier.state_dict()
    with torch.device("meta"):
        network = VGG16(fc_width=width).eval()
    network.load_state_dict(convolutionalise(tensors, width), assign=True)
    head = tensors["classifier.6.weight"][:, :, None, None]
    return functional.conv2d(network(picture)[2], head, tensors["classifier.6.bias"])


@torch.inference_mode()
def test_answers_as_the_classifier_on_its_picture() -> None:
    classifier = random_classifier(64, classes=10)
    picture = torch.rand(1, 3, 224, 224)
    expected = classifier(picture)
    scores = dense_scores(classifier, picture, width=64)
    assert scores.shape == (1, 10, 7, 7)
    # The kernel of fc6 lies on the whole map at the middle cell alone.
    assert torch.allclose(scores[..., 3, 3], expected, atol=1e-4)
    assert not torch.allclose(scores[..., 3, 4], expected, atol=1e-2)


@torch.inference_mode()
def test_answers_at_every_cell_as_the_classifier_on_its_crop() -> None:
    """Where no padding reaches a cell, it is the classifier's answer on what the cell sees."""
    classifier = random_classifier(8, classes=4, padding=0)
    picture = torch.rand(1, 3, 416, 450)
    scores = dense_scores(classifier, picture, width=8)
    row = 6
    for column in (6, 7):
        top, left = (32 * cell + 16 - RECEPTIVE_FIELD // 2 for cell in (row, column))
        crop = picture[..., top : top + RECEPTIVE_FIELD, left : left + RECEPTIVE_FIELD]
        assert crop.shape[-2:] == (RECEPTIVE_FIELD, RECEPTIVE_FIELD)
        expected = classifier(crop)
        assert torch.allclose(scores[..., row, column], expected, atol=1e-4)
        # One cell to the left padding of the picture, or another crop, gives other answers.
        assert not torch.allclose(scores[..., row, column - 1], expected, atol=1e-3)


def test_layer_numbers_are_those_of_torchvision() -> None:
    numbers = {int(name.split(".")[0]) for name, _ in VGG16(fc_width=8).features.named_parameters()}
    assert sorted(numbers) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def test_names_and_shapes_are_those_of_torchvision_itself(torchvision: Any) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg16().state_dict()
        ours = Classifier(4096, 1000).state_dict()
    assert {n: v.shape for n, v in theirs.items()} == {n: v.shape for n, v in ours.items()}


def test_fewer_channels_are_every_so_manieth() -> None:
    tensors = {
        "classifier.0.weight": torch.arange(8.0)[:, None].expand(8, 2 * 49),
        "classifier.0.bias": torch.arange(8.0),
        "classifier.3.weight": 10 * torch.arange(8.0)[:, None] + torch.arange(8.0),
        "classifier.3.bias": torch.arange(8.0),
        "classifier.6.bias": torch.zeros(1000),
    }
    kept = convolutionalise(tensors, 4)
    assert {name: tuple(value.shape) for name, value in kept.items()} == {
        "fc6.weight": (4, 2, 7, 7),
        "fc6.bias": (4,),
        "fc7.weight": (4, 4, 1, 1),
        "fc7.bias": (4,),
    }
    assert kept["fc6.bias"].tolist() == kept["fc6.weight"][:, 1, 6, 6].tolist() == [0, 2, 4, 6]
    # fc7 reads the channels of fc6 that are left.
    assert kept["fc7.weight"][1, :, 0, 0].tolist() == [20, 22, 24, 26]
    assert len(convolutionalise(tensors, 8)["fc6.bias"]) == 8
    del tensors["classifier.3.bias"]
    assert not convolutionalise(tensors, 4), "half a classifier is none"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fc_width": 7}, "fc_width is from 8"),
        ({"fc_width": 4097}, "fc_width is from 8"),
        ({"fc_width": 8, "dropout": 1.0}, "dropout is from 0"),
        ({"fc_width": 8, "dropout": -0.1}, "dropout is from 0"),
    ],
)
def test_refuses(options: dict[str, float], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        VGG16(**options)  # type: ignore[arg-type]
