"""PyTorch: ``peer_pytorch.py CHECKPOINT NETWORK.json [--compiled yes]``.

Our network and weights as a module, in eager mode or through ``torch.compile``, with OpenCV
around it. Of edgeseg only the reading of the checkpoint is used.
"""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from worker import camera_loop, network, option, serve, versions

from edgeseg.training.checkpoint import load_checkpoint


class Labels(nn.Module):
    """The network with the argmax that the exported graph has too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> Tensor:
        """Float32 (N, 3, H, W) → uint8 (N, H, W)."""
        labels: Tensor = self.network(batch).argmax(1).to(torch.uint8)
        return labels


def main() -> None:
    """Load the weights and answer."""
    settings = network(sys.argv[2])
    model = Labels(load_checkpoint(Path(sys.argv[1]))[0]).eval()
    if option(sys.argv, "--compiled", "no") == "yes":
        model.compile()
    size = (settings["width"], settings["height"])
    mean = torch.tensor(settings["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(settings["std"]).view(1, 3, 1, 1)
    palette = np.array(settings["palette"], np.uint8)[:, ::-1]

    def prepare(frame: Any) -> Tensor:
        rgb = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), size)
        return (torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255 - mean) / std

    @torch.inference_mode()
    def infer(tensor: Tensor) -> Any:
        return model(tensor)[0].numpy()

    def draw(frame: Any, labels: Any) -> None:
        mask = cv2.resize(labels, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        cv2.addWeighted(frame, 0.5, palette[mask], 0.5, 0)

    found = versions("numpy", "opencv-python", "torch")
    serve(
        camera_loop(prepare, infer, draw), {"versions": found, "threads": torch.get_num_threads()}
    )


if __name__ == "__main__":
    main()
