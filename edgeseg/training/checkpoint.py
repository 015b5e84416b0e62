"""Save and load checkpoints: safetensors files with the model card in the header.

A side-car file lies beside each one. Pickles are refused, since loading one can run code.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.artifacts.card import CARD_KEY, ModelCard
from edgeseg.artifacts.documents import parse
from edgeseg.artifacts.files import atomic_path, sha256_file
from edgeseg.artifacts.headers import read_safetensors
from edgeseg.artifacts.sidecar import SideCar, sidecar_path, verify
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError, needed
from edgeseg.models import build
from edgeseg.training.finite import non_finite, refuse_non_finite

with needed("checkpoints need", "train"):
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save as serialize


def save_checkpoint(path: Path, model: nn.Module, card: ModelCard) -> None:
    """Write weights, card and side-car; each file is written atomically.

    Args:
        path: ``RUN/model.safetensors``.
        model: Network built by ``build(card.arch, …)``, on any device.
        card: Card of the network, stored in the header under ``edgeseg.card``.

    Raises:
        UsageError: The path is not writable.
        NonFiniteOutput: A weight is NaN or infinite; an existing file is left untouched.
    """
    refuse_non_finite(path, _state(model).items())
    tensors = {name: value.detach().cpu().contiguous() for name, value in _state(model).items()}
    with atomic_path(path) as partial:
        # Not save_file: it creates files that only their owner can read.
        partial.write_bytes(serialize(tensors, metadata={CARD_KEY: card.to_json()}))
        # A checkpoint loads without a side-car, but not with the side-car of another file.
        sidecar_path(path).unlink(missing_ok=True)
    SideCar(
        artifact_sha256=sha256_file(path),
        artifact_bytes=path.stat().st_size,
        card=card,
        runtime="torch",
        runtime_version=str(torch.__version__),
    ).save(sidecar_path(path))


def load_checkpoint(path: Path) -> tuple[nn.Module, ModelCard]:
    """Load a checkpoint and return its network, on the CPU in evaluation mode, and its card.

    The shapes in the file are compared with the card before any memory is allocated.

    Raises:
        UsageError: No such file.
        UntrustedArtifact: The file is a pickle (``.pt``, ``.pth``), which could run code.
        CorruptArtifact: The file is empty, truncated, altered or not safetensors, or its weights
            do not match the card or are not finite.
        MismatchedArtifact: The file has no edgeseg card, or a card of another version.
    """
    path = Path(path)
    # safe_open reads the whole file before it notices a bad header.
    read_safetensors(path)
    verify(path, required=False)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            card = _card(file.metadata() or {}, path)
            model = _empty_model(card, path)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
            _check_shapes(_state(model), shapes, path)
            tensors = {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise CorruptArtifact(
            f"{path}: not readable as safetensors ({error})",
            hint="copy it again, or train again with `edgeseg train`",
        ) from error
    _check_values(_state(model), tensors, path)
    model.load_state_dict(tensors, assign=True)
    return model.eval(), card


def _state(model: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = model.state_dict()
    return state


def _card(metadata: dict[str, str], path: Path) -> ModelCard:
    if CARD_KEY not in metadata:
        raise MismatchedArtifact(
            f"{path} holds tensors but no {CARD_KEY} in its header, so it was not made by edgeseg",
            hint="train with `edgeseg train`; pass ImageNet weights with --weights",
        )
    return parse(ModelCard, metadata[CARD_KEY], str(path))


def _empty_model(card: ModelCard, path: Path) -> nn.Module:
    """Build the card's network on the meta device: shapes without memory."""
    try:
        with torch.device("meta"):
            return build(card.arch, len(card.classes), card.input.channels, **card.options)
    except UsageError as error:
        raise CorruptArtifact(f"{path}: its card describes no network: {error.message}") from error


def _check_shapes(
    expected: dict[str, Tensor], found: dict[str, tuple[int, ...]], path: Path
) -> None:
    wanted = {name: tuple(value.shape) for name, value in expected.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise CorruptArtifact(
                f"{path}: expected {name} of shape {wanted.get(name, 'none')} by its card, "
                f"found {found.get(name, 'nothing')}",
                hint="train again with `edgeseg train`",
            )


def _check_values(expected: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    for name, value in found.items():
        if value.dtype != expected[name].dtype:
            raise CorruptArtifact(
                f"{path}: expected {name} as {expected[name].dtype}, found {value.dtype}"
            )
    for name in non_finite(found.items()):
        raise CorruptArtifact(
            f"{path}: {name} holds NaN or infinity", hint="train again with `edgeseg train`"
        )
