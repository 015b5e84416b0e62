"""Load pretrained weights: VGG16 or an encoder on ImageNet, or another edgeseg network.

Files of ``torch.save`` are read with ``weights_only``; one that holds anything but tensors is
refused, since it could run code. Nothing is copied unless the whole file is valid.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.artifacts.card import CARD_KEY
from edgeseg.artifacts.headers import is_pickle
from edgeseg.artifacts.sidecar import verify
from edgeseg.errors import (
    CorruptArtifact,
    MismatchedArtifact,
    RuntimeMissing,
    UntrustedArtifact,
    needed,
)
from edgeseg.models.encoders import Encoder, as_features, download
from edgeseg.models.vgg import VGG16, convolutionalise

_VGG16_MEND = "use the weights of torchvision's vgg16, as safetensors or .pth"


def load_pretrained(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Copy all matching weights from a file into ``model``.

    Three kinds of file are supported:

    - an edgeseg checkpoint, of this or another network: every tensor of the same name and shape
      is copied. So FCN-16s can start from FCN-32s, FCN-8s from FCN-16s, and any network from one
      with other classes, whose score layers stay fresh. Fixed tensors are not overwritten.
    - VGG16 with torchvision's names, for FCN-32s, -16s and -8s: the 13 convolutions, and with
      ``classifier.0`` and ``classifier.3`` also fc6 and fc7; see
      :func:`edgeseg.models.vgg.convolutionalise` for ``fc_width`` below 4096.
    - a classifier with timm's names, for a network with that encoder; see
      :func:`edgeseg.models.encoders.as_features`.

    Args:
        model: Newly built network, on any device.
        path: safetensors file of any float type, or for VGG16 also a state dict saved by
            ``torch.save`` (``.pth``).

    Returns:
        The names in ``model`` that were copied; all others are unchanged.

    Raises:
        UsageError: No such file.
        UntrustedArtifact: The file is a pickle that holds more than tensors, or the network has an
            encoder.
        CorruptArtifact: The file is truncated or altered, or a weight is not finite.
        MismatchedArtifact: Nothing in the file matches this network, or its VGG16 or encoder is
            incomplete.
    """
    path = Path(path)
    encoder = _encoder_of(model)
    if is_pickle(path):
        if encoder is not None:
            raise UntrustedArtifact(
                f"{path} is a pickle; weights of an encoder are read from safetensors only",
                hint="save the state dict with safetensors.torch.save_file",
            )
        return _copy_vgg16(model, _unpickle(path), str(path))
    verify(path, required=False)
    tensors, is_checkpoint = _read_safetensors(path)
    if is_checkpoint:
        return _copy_alike(model, tensors, str(path))
    if encoder is not None:
        return _copy_encoder(encoder, tensors, str(path))
    return _copy_vgg16(model, tensors, str(path))


def load_imagenet(model: nn.Module) -> tuple[str, ...]:
    """Copy ImageNet weights into an encoder, timm's, or into an FCN, torchvision's of VGG16.

    They are downloaded once; those of VGG16 take 528 MiB.

    Returns:
        The names in ``model`` that were copied.

    Raises:
        RuntimeMissing: torchvision is not installed, timm has no such weights, or the download
            failed.
        MismatchedArtifact: The network contains neither, or its VGG16 takes grey pictures.
    """
    if (encoder := _encoder_of(model)) is not None:
        path = download(encoder.name)
        return _copy_encoder(encoder, _read_safetensors(path)[0], str(path))
    _vgg16_of(model, "ImageNet weights")
    try:
        from torchvision.models import VGG16_Weights
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch.
        raise RuntimeMissing(
            f"ImageNet weights come with torchvision, which is not installed or does not fit the "
            f"torch that is ({error})",
            hint="pip install torchvision from where torch came from, or give a file of them with "
            "--weights",
        ) from error
    weights = VGG16_Weights.IMAGENET1K_V1
    try:
        # torchvision prints the download path; stdout is reserved for results.
        with contextlib.redirect_stdout(sys.stderr):
            tensors = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise RuntimeMissing(
            f"the ImageNet weights could not be downloaded from {weights.url} ({error})",
            hint="download that file on a machine with network access, and pass it with --weights",
        ) from error
    return _copy_vgg16(model, tensors, str(weights))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Read the tensors, and whether the file has a card, i.e. was written by edgeseg."""
    with needed("reading weights needs", "train"):
        from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return tensors, CARD_KEY in (file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CorruptArtifact(
            f"{path}: not readable as safetensors ({error})",
            hint="copy it again; weights are a safetensors file or, of VGG16, one of torch.save",
        ) from error


def _unpickle(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UntrustedArtifact(
            f"{path} is a pickle that holds more than tensors, and loading it would run that",
            hint="save the state dict alone, best with safetensors.torch.save_file",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise CorruptArtifact(
            f"{path}: not readable as weights ({reason[0] if reason else type(error).__name__})",
            hint="copy it again",
        ) from error
    if not isinstance(found, dict):
        raise MismatchedArtifact(
            f"{path}: expected a state dict, found {type(found).__name__}", hint=_VGG16_MEND
        )
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def _copy_alike(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> tuple[str, ...]:
    """Copy every tensor whose name and shape match one of the network that is not fixed."""
    fixed = {name for name, value in model.named_parameters() if not value.requires_grad}
    state = {name: value for name, value in model.state_dict().items() if name not in fixed}
    alike = {
        name: value
        for name, value in tensors.items()
        if name in state and state[name].shape == value.shape
    }
    # Biases and counters may match by chance; related networks share at least one kernel.
    if not any(value.ndim > 1 for value in alike.values()):
        raise MismatchedArtifact(
            f"{origin}: no layer in it has the name and shape of one in this {_name(model)}",
            hint="give a checkpoint of the same architecture and width, or omit --weights",
        )
    return _copy(state, alike, origin)


def _copy_vgg16(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> tuple[str, ...]:
    """Copy all convolutions of a VGG16, and its hidden dense layers if present."""
    network = _vgg16_of(model, origin)
    state = network.state_dict()
    try:
        found = convolutionalise(tensors, network.fc_width)
    except (RuntimeError, IndexError) as error:
        raise MismatchedArtifact(
            f"{origin}: classifier.0 and classifier.3 are not dense layers of VGG16 ({error})",
            hint=_VGG16_MEND,
        ) from error
    for name in {name: None for name in state if name.startswith("features.")} | found:
        shape = tuple(found[name].shape) if name in found else "nothing"
        expected = tuple(state[name].shape) if name in state else "nothing"
        if shape != expected:
            raise MismatchedArtifact(
                f"{origin}: expected {name} of shape {expected}, found {shape}", hint=_VGG16_MEND
            )
    return tuple(f"vgg.{name}" for name in _copy(state, found, origin))


def _encoder_of(model: nn.Module) -> Encoder | None:
    encoder = getattr(model, "encoder", None)
    return encoder if isinstance(encoder, Encoder) else None


def _copy_encoder(encoder: Encoder, tensors: Mapping[str, Tensor], origin: str) -> tuple[str, ...]:
    found = as_features(tensors, encoder, origin)
    copied = _copy(encoder.network.state_dict(), found, origin)
    return tuple(f"encoder.network.{name}" for name in copied)


def _vgg16_of(model: nn.Module, origin: str) -> VGG16:
    network = getattr(model, "vgg", None)
    if not isinstance(network, VGG16):
        raise MismatchedArtifact(
            f"{origin}: not a checkpoint of edgeseg, and {_name(model)} has no VGG16 inside",
            hint="train with --arch fcn8s or --option encoder=NAME, or omit the weights",
        )
    if network.in_channels != 3:
        raise MismatchedArtifact(
            f"{origin}: ImageNet weights are for colour pictures, this network takes grey",
            hint="train with colour input, or without --weights",
        )
    return network


def _copy(
    state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], origin: str
) -> tuple[str, ...]:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CorruptArtifact(f"{origin}: {name} holds NaN or infinity", hint="copy it again")
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].copy_(value)
    return tuple(tensors)


def _name(model: nn.Module) -> str:
    return type(model).__name__
