"""Checkpoints: safetensors with the model card in the header, side-car beside it.

Pickles are never opened: loading one executes what it holds.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.artifacts import require_file, sha256_file, write_atomic
from edgeseg.card import CARD_KEY, ModelCard
from edgeseg.documents import parse
from edgeseg.errors import (
    CorruptArtifact,
    MismatchedArtifact,
    RuntimeMissing,
    UntrustedArtifact,
    UsageError,
)
from edgeseg.inspection.headers import read_safetensors
from edgeseg.models import build
from edgeseg.sidecar import SideCar, sidecar_path, verify
from edgeseg.training.finite import non_finite, refuse_non_finite

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save as serialize
except ModuleNotFoundError as error:
    raise RuntimeMissing(
        "checkpoints need safetensors, which is not installed",
        mend="pip install 'edgeseg[train]'",
    ) from error

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")
"""``torch.save`` writes a zip around a pickle since 1.6, and a bare pickle before."""


def save_checkpoint(path: Path, model: nn.Module, card: ModelCard) -> None:
    """Write weights, card and side-car, each whole or not at all.

    Args:
        path: ``RUN/model.safetensors``.
        model: What ``build(card.arch, …)`` makes, on any device.
        card: Its card; goes into the header under ``edgeseg.card``.

    Raises:
        UsageError: The place cannot be written.
        NonFiniteOutput: A weight is NaN or infinite; nothing is written, and what is there stays.
    """
    refuse_non_finite(path, _state(model).items())
    tensors = {name: value.detach().cpu().contiguous() for name, value in _state(model).items()}
    # Without its side-car a checkpoint still loads; with the one of other bytes it does not.
    sidecar_path(path).unlink(missing_ok=True)
    # Not save_file: it makes files that only their owner can read.
    write_atomic(path, serialize(tensors, metadata={CARD_KEY: card.to_json()}))
    SideCar(
        artifact_sha256=sha256_file(path),
        artifact_bytes=path.stat().st_size,
        card=card,
        runtime="torch",
        runtime_version=str(torch.__version__),
    ).save(sidecar_path(path))


def load_checkpoint(path: Path) -> tuple[nn.Module, ModelCard]:
    """Read a checkpoint: the network on the CPU in evaluation mode, and its card.

    Nothing is allocated before the shapes in the file were found to be those of the card.

    Raises:
        UsageError: No such file.
        UntrustedArtifact: A pickle (``.pt``, ``.pth``), which would run code when loaded.
        CorruptArtifact: Empty, truncated, altered, not safetensors, or weights that do not fit
            the card or are not finite.
        MismatchedArtifact: Safetensors without an edgeseg card, or of another version.
    """
    path = Path(path)
    _refuse_pickle(path)
    verify(path, required=False)
    # safe_open reads a file whole before it finds that the header does not fit.
    read_safetensors(path)
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
            mend="copy it again, or train again with `edgeseg train`",
        ) from error
    _check_values(_state(model), tensors, path)
    model.load_state_dict(tensors, assign=True)
    return model.eval(), card


def _state(model: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = model.state_dict()
    return state


def _refuse_pickle(path: Path) -> None:
    require_file(path)
    with path.open("rb") as stream:
        start = stream.read(9)
    # safetensors begins with the length of its header, which may look like a pickle's first byte.
    if start.startswith(_PICKLE_STARTS) and start[8:] != b"{":
        raise UntrustedArtifact(
            f"{path} is a pickle or a zip archive, and loading it would run the code it holds; "
            "edgeseg reads safetensors",
            mend="save the state dict with safetensors.torch.save_file where you trust the file",
        )


def _card(metadata: dict[str, str], path: Path) -> ModelCard:
    if CARD_KEY not in metadata:
        raise MismatchedArtifact(
            f"{path} holds tensors but no {CARD_KEY} in its header, so it was not made by edgeseg",
            mend="train with `edgeseg train`; ImageNet weights are given to it with --weights",
        )
    return parse(ModelCard, metadata[CARD_KEY], str(path))


def _empty_model(card: ModelCard, path: Path) -> nn.Module:
    """The network of the card with shapes and no memory behind them."""
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
                mend="train again with `edgeseg train`",
            )


def _check_values(expected: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    for name, value in found.items():
        if value.dtype != expected[name].dtype:
            raise CorruptArtifact(
                f"{path}: expected {name} as {expected[name].dtype}, found {value.dtype}"
            )
    for name in non_finite(found.items()):
        raise CorruptArtifact(
            f"{path}: {name} holds NaN or infinity", mend="train again with `edgeseg train`"
        )
