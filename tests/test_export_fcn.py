"""FCNs as ONNX: the fixed deconvolution is depthwise, learnt ones are dense, labels agree."""

from pathlib import Path

import numpy as np
import onnx
import torch
from cards import model_card
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.engines import open_engine
from edgeseg.export.network import export_module
from edgeseg.models import build
from edgeseg.models.fcn import FCN


class ThinBackbone(nn.Module):
    """In place of VGG16, whose 15 million weights take the exporter ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(3, channels, 1) for channels in (256, 512, 8))

    def forward(self, picture: Tensor) -> list[Tensor]:
        maps = []
        for layer, stride in zip(self.maps, (8, 16, 32), strict=True):
            maps.append(layer(functional.avg_pool2d(picture, stride, ceil_mode=True)))
        return maps


def lively(network: FCN) -> FCN:
    """Weights such that every class is answered somewhere, and learnt layers mix channels."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad and not name.startswith("vgg"):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return network.eval()


def test_labels_agree_and_only_the_fixed_deconvolution_is_depthwise(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"fc_width": 8}
    network = build("fcn8s", 3, **options)
    assert isinstance(network, FCN)
    network.vgg = ThinBackbone()
    card = model_card("abc", 70, 96, name="fcn8s", arch="fcn8s", options=options)
    result = export_module(lively(network), card, tmp_path / "model.onnx")
    graph = onnx.load(result.path).graph
    sizes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    found = {n.name: sizes[n.input[1]] for n in graph.node if n.op_type == "ConvTranspose"}
    assert found == {
        "twice_fc7/ConvTranspose": (3, 3, 4, 4),
        "twice_pool4/ConvTranspose": (3, 3, 4, 4),
        "upsample/ConvTranspose": (3, 1, 16, 16),
    }
    image = np.random.default_rng(0).normal(0, 20, (1, 3, 70, 96)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).argmax(dim=1).numpy()
    assert len(np.unique(expected)) > 1
    with open_engine(result.path) as engine:
        assert (engine.infer(image) == expected).mean() > 0.999
