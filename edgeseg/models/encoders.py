"""Encoders of timm: classification networks whose features a decoder reads.

timm (Wightman, "PyTorch Image Models", Apache 2.0) builds them without weights and without a
download. Weights have the names of timm's own classifiers, those of ``model.safetensors`` in the
repositories ``timm/NAME`` of the Hugging Face Hub.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import MismatchedArtifact, RuntimeMissing, UsageError
from edgeseg.models.layers import PaddedConv2d

STRIDES = (2, 4, 8, 16, 32)
"""Strides of an encoder's features."""
FILE = "model.safetensors"
_EXAMPLES = "use for example resnet18, mobilenetv4_conv_small or efficientnet_lite0"


class Encoder(nn.Module):
    """Features of a timm network, from float (N, in_channels, H, W).

    The features have :data:`STRIDES`, so their sizes are those of the picture divided by these and
    rounded up.

    Args:
        name: Name of a timm network, ``resnet18`` or with the tag of its weights
            ``resnet18.a1_in1k``.

    Raises:
        RuntimeMissing: timm is not installed, or not importable.
        UsageError: timm has no such network, or its features have other strides.
    """

    def __init__(self, name: str, in_channels: int) -> None:
        super().__init__()
        config = _config(name)
        try:
            network = _timm().create_model(name, features_only=True, in_chans=in_channels)
        except Exception as error:  # Networks without features raise all kinds.
            raise _unfit(name, f"timm cannot build it for features ({error})") from error
        if tuple(network.feature_info.reduction()) != STRIDES:
            found = ", ".join(map(str, network.feature_info.reduction()))
            raise _unfit(name, f"its features have the strides {found}, not 2, 4, 8, 16, 32")
        if config.fixed_input_size:
            raise _unfit(name, "it takes pictures of a single size")
        for layer in network.modules():
            if type(layer) is nn.Conv2d:
                layer.__class__ = PaddedConv2d
        self.name, self.in_channels = name, in_channels
        self.channels: tuple[int, ...] = tuple(network.feature_info.channels())
        self.network = network

    def forward(self, picture: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.network(picture)
        return features


def statistics(name: str, channels: int) -> dict[str, tuple[float, ...]]:
    """Return ``mean`` and ``std`` of the pictures, 0…1, that timm trained a network on.

    Args:
        channels: 3, or 1 for grey pictures: means over the colours.

    Raises:
        RuntimeMissing: timm is not installed, or not importable.
        UsageError: timm has no such network.
    """
    config = _config(name)
    values = {"mean": tuple(config.mean), "std": tuple(config.std)}
    if channels == 1:
        return {key: (round(sum(value) / len(value), 3),) for key, value in values.items()}
    return values


def as_features(tensors: Mapping[str, Tensor], encoder: Encoder, origin: str) -> dict[str, Tensor]:
    """Convert the weights of a timm classifier to the names and shapes of its features.

    The classifier's last layers are discarded. For grey pictures the weights of the first
    convolution are summed over the colours, which gives the result of a picture of three equal
    channels.

    Args:
        origin: Name of the file for errors.

    Raises:
        MismatchedArtifact: A tensor of the encoder is absent or has another shape.
    """
    children = {name for name, _ in encoder.network.named_children()}
    state = encoder.network.state_dict()
    converted = {}
    for name, value in tensors.items():
        # timm lifts each stage of a network: stages.0.conv → stages_0.conv.
        lifted = name if name.split(".")[0] in children else name.replace(".", "_", 1)
        if lifted in state:
            converted[lifted] = value
    first = next(iter(state))
    if encoder.in_channels == 1 and first in converted and converted[first].ndim == 4:
        converted[first] = converted[first].sum(1, keepdim=True)
    for name, value in state.items():
        if name.endswith(".num_batches_tracked"):  # of no use, and absent from some files
            continue
        shape = tuple(converted[name].shape) if name in converted else "nothing"
        if shape != tuple(value.shape):
            raise MismatchedArtifact(
                f"{origin}: expected {name} of shape {tuple(value.shape)} by timm's "
                f"{encoder.name}, found {shape}",
                hint=f"use {FILE} of {hub_name(encoder.name) or 'this network'}, or the --option "
                "encoder=NAME that the file belongs to",
            )
    return converted


def hub_name(name: str) -> str | None:
    """Return the repository of a network's weights on the Hugging Face Hub, None if none is there.

    Raises:
        UsageError: timm has no such network.
    """
    found: str | None = _config(name).hf_hub_id
    return found


def download(name: str) -> Path:
    """Download the weights of a timm network to the cache of the Hugging Face Hub, once.

    Raises:
        RuntimeMissing: There are no weights, or the download failed.
        UsageError: timm has no such network.
    """
    repository = hub_name(name)
    if repository is None:
        raise RuntimeMissing(
            f"timm has no weights for {name}", hint=_near(name, _timm().list_pretrained())
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, FILE))
    except Exception as error:  # Those of its HTTP library have no base in common.
        raise RuntimeMissing(
            f"the weights of {name} could not be downloaded from the Hugging Face Hub ({error})",
            hint=f"download {FILE} of {repository} on a machine with network access, and pass it "
            "with --weights",
        ) from error


def _timm() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision for another torch.
        raise RuntimeMissing(
            "encoders come with timm, which is not installed or whose torchvision does not fit "
            f"torch {torch.__version__} ({error})",
            hint="pip install 'edgeseg[timm]', with torchvision from where torch came from: for "
            "torch of the CPU index, pip install torchvision --index-url "
            "https://download.pytorch.org/whl/cpu",
        ) from error
    return timm


def _config(name: str) -> Any:
    """What timm knows of a network: its input and where its weights are."""
    timm = _timm()
    try:
        # A name such as hf-hub:… is none of timm's own, and would be fetched.
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # no such tag
        config = None
    if config is None:
        known = timm.list_pretrained() if "." in name else timm.list_models()
        raise UsageError(
            f"timm {timm.__version__} has no network {name!r}", hint=_near(name, known)
        )
    return config


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 3)
    return f"similar names: {', '.join(near)}" if near else _EXAMPLES


def _unfit(name: str, reason: str) -> UsageError:
    return UsageError(f"{name} cannot be an encoder: {reason}", hint=_EXAMPLES)
