"""The exports on the page "Bring your own network", run where their libraries are installed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import DOCS

TEXT = (DOCS / "bring-your-own.md").read_text("utf-8")
SIZES = (64, 96)  # smaller than on the page, which nobody would wait for


def blocks(heading: str) -> tuple[str, str]:
    """The Python and the shell of a section, word for word but for the size."""
    section = TEXT.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    python, shell = re.findall(r"```(?:python|sh)\n(.*?)```", section, re.S)
    return python.replace("256, 512", ", ".join(map(str, SIZES))), shell


def save_smp(smp: Any) -> None:
    model = smp.Unet("resnet18", encoder_weights=None, classes=2, decoder_channels=[16] * 5)
    model.save_pretrained("my-unet")


def save_torchvision(torchvision: Any) -> None:
    import torch

    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large
    torch.save(network(num_classes=2, weights_backbone=None).state_dict(), "lraspp.pth")


def save_transformers(transformers: Any) -> None:
    small: dict[str, Any] = {"depths": [1] * 4, "hidden_sizes": [8, 16, 16, 16]}
    names = {0: "background", 1: "nucleus"}
    config = transformers.SegformerConfig(num_labels=2, id2label=names, **small)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained("my-segformer")


@pytest.mark.parametrize(
    ("heading", "library", "save"),
    [
        ("segmentation_models.pytorch", "segmentation_models_pytorch", save_smp),
        ("torchvision", "torchvision", save_torchvision),
        ("Hugging Face transformers", "transformers", save_transformers),
    ],
)
@pytest.mark.filterwarnings("default")
def test_exports_on_the_page(
    heading: str,
    library: str,
    save: Callable[[Any], None],
    edgeseg: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    python, shell = blocks(heading)
    if library == "torchvision":
        module = request.getfixturevalue(library)
    else:
        module = pytest.importorskip(library, reason=f"{library} is not installed here")
    monkeypatch.chdir(tmp_path)
    save(module)
    exec(compile(python, heading, "exec"), {})
    outcome = edgeseg(*shlex.split(shell)[1:])
    assert outcome.code == 0, outcome.err
    assert list(tmp_path.glob("runs/*/model.onnx"))
    assert "proof: " in outcome.out


def test_a_section_without_shell_would_be_seen() -> None:
    with pytest.raises(ValueError, match="unpack"):
        blocks("From Python")
