"""Modules of PyTorch with any outputs become networks of ours, compared with PyTorch itself."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import NAMES, SIZE, picture
from torch import Tensor, nn

import edgeseg
from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.engines import open_engine
from edgeseg.errors import InferenceError, MismatchedArtifact, UsageError
from edgeseg.ops.preprocess import preprocess

FIELDS = {"classes": NAMES, "size": SIZE, "normalise": "unit"}


class Scorer(nn.Module):
    """Scores at half the size, in whatever container ``pack`` makes of them."""

    def __init__(self, pack: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.pack = pack

    def forward(self, image: Tensor) -> Any:
        return self.pack(self.conv(image))


def expected(module: Scorer, image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Labels as PyTorch users make them."""
    with torch.inference_mode():
        scores = module.conv(torch.from_numpy(preprocess(image, spec))[None])
        wide = nn.functional.interpolate(scores, SIZE, mode="bilinear", align_corners=False)
    return wide.argmax(1)[0].numpy()


@pytest.mark.parametrize(
    "pack",
    [
        lambda x: OrderedDict(out=x, aux=x[:, :, ::4, ::4]),
        lambda x: {"aux_logits": x[:, :, ::4, ::4], "logits": x, "loss": None},
        lambda x: (x.permute(0, 2, 3, 1), x.mean((2, 3))),
    ],
    ids=["torchvision", "transformers", "tuple"],
)
def test_every_container_of_outputs(tmp_path: Path, pack: Any) -> None:
    module = Scorer(pack).train()
    path = tmp_path / "run" / "model.onnx"
    made = edgeseg.export_module(module, FIELDS, path)
    assert module.training
    assert made.path == path
    assert [each.name for each in path.parent.iterdir() if "traced" in each.name] == []
    image = picture(1)[0]
    with open_engine(path) as engine:
        assert engine.card.name == "Scorer"
        assert engine.card.classes.names == NAMES
        found = engine.segment(image)
    assert np.count_nonzero(found != expected(module, image, made.card.input)) <= 3  # near ties


def test_a_card_says_all_of_the_input(tmp_path: Path) -> None:
    spec = InputSpec(
        height=SIZE[0], width=SIZE[1], color="bgr", mean=(9, 8, 7), std=(3, 2, 1), scale=1.0,
        resize="letterbox", reduce="area",
    )  # fmt: skip
    card = ModelCard(name="mine", arch="any", classes=ClassMap(names=NAMES), input=spec)
    made = edgeseg.export_module(Scorer(lambda x: x), card, tmp_path / "model.onnx")
    assert made.card.input == spec
    assert made.card.name == "mine"


def test_what_is_missing_or_wrong_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"

    def refused(pack: Any, fields: Any, error: type[edgeseg.EdgesegError]) -> str:
        with pytest.raises(error) as caught:
            edgeseg.export_module(Scorer(pack), fields, path)
        assert not path.exists()
        assert list(tmp_path.iterdir()) == []
        return caught.value.message

    def same(x: Tensor) -> Tensor:
        return x

    assert "no field 'size'" in refused(same, {"classes": NAMES}, UsageError)
    assert "unknown field 'sizes'" in refused(same, FIELDS | {"sizes": 3}, UsageError)
    assert "expected tensors" in refused(lambda x: [None], FIELDS, UsageError)
    assert "found 'scores' (1, 3)" in refused(lambda x: x.mean((2, 3)), FIELDS, MismatchedArtifact)
    assert "cannot export Scorer" in refused(untraceable, FIELDS, InferenceError)


def untraceable(scores: Tensor) -> Tensor:
    if torch.compiler.is_exporting():
        raise NotImplementedError("nobody can trace this")
    return scores


def test_a_graph_unlike_the_module_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeseg.export import module as exporting

    noise = np.random.default_rng(0).normal(size=(1, 3, 24, 32)).astype(np.float32)
    monkeypatch.setattr(exporting._TorchRun, "raw", lambda self, tensor, name: noise)
    with pytest.raises(InferenceError, match="differs from the original"):
        edgeseg.export_module(Scorer(lambda x: x), FIELDS, tmp_path / "model.onnx")
