"""Checkpoints: the same network comes back, and nothing else is let in."""

import os
import pickle
import resource
import time
from pathlib import Path

import pytest
import torch
from cards import model_card
from safetensors.torch import load_file, save_file
from torch import nn

from edgeseg.artifacts.card import CARD_KEY, ModelCard
from edgeseg.artifacts.sidecar import read, sidecar_path
from edgeseg.errors import (
    CorruptArtifact,
    EdgesegError,
    MismatchedArtifact,
    NonFiniteOutput,
    UntrustedArtifact,
)
from edgeseg.models import build
from edgeseg.models.pretrained import load_pretrained
from edgeseg.training.checkpoint import load_checkpoint, save_checkpoint

OPTIONS: dict[str, bool | int | float | str] = {"width": 8, "depth": 1, "stem_stride": 1}
CARD = model_card("abc", 16, 16, options=OPTIONS)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return build("unet-lite", 3, **OPTIONS).to(memory_format=torch.channels_last)


@pytest.fixture
def path(tmp_path: Path, model: nn.Module) -> Path:
    target = tmp_path / "run" / "model.safetensors"
    save_checkpoint(target, model, CARD)
    return target


def rewrite(path: Path, card: ModelCard | str | None = CARD, **tensors: torch.Tensor) -> None:
    """Write other content under the same name, with no side-car to give it away."""
    text = card.to_json() if isinstance(card, ModelCard) else card
    save_file(load_file(path) | tensors, path, None if text is None else {CARD_KEY: text})
    sidecar_path(path).unlink(missing_ok=True)


def test_the_same_network_comes_back(path: Path, model: nn.Module) -> None:
    loaded, card = load_checkpoint(path)
    assert card == CARD
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    picture = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        # The one is channels last, the other is not: other kernels, other roundings.
        assert torch.allclose(loaded(picture), model.eval()(picture), atol=1e-5)


def test_the_sidecar_vouches_for_it(path: Path) -> None:
    sidecar = read(path)
    assert sidecar is not None
    assert (sidecar.runtime, sidecar.card) == ("torch", CARD)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="changed since it was made"):
        load_checkpoint(path)


def test_overwriting_keeps_file_and_sidecar_together(path: Path, model: nn.Module) -> None:
    nn.init.ones_(next(model.parameters()))
    save_checkpoint(path, model, CARD)
    loaded, _ = load_checkpoint(path)
    assert bool((next(loaded.parameters()) == 1).all())
    assert sorted(item.name for item in path.parent.iterdir()) == [path.name, path.name + ".json"]


def test_a_full_disk_takes_nothing_from_the_checkpoint_before(path: Path, model: nn.Module) -> None:
    before = {item.name: item.read_bytes() for item in path.parent.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(EdgesegError, match="cannot write"):
            save_checkpoint(path, model, CARD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {item.name: item.read_bytes() for item in path.parent.iterdir()} == before


def test_a_header_whose_length_begins_like_a_pickle(path: Path, model: nn.Module) -> None:
    """Lengths are multiples of 8, so one checkpoint in 32 begins with a pickle's 0x80."""
    lengths = set()
    for letters in range(0, 256, 8):
        save_checkpoint(path, model, CARD.model_copy(update={"dataset": "x" * letters}))
        lengths.add(path.read_bytes()[0])
        if 0x80 in lengths:
            break
    assert 0x80 in lengths
    load_checkpoint(path)
    copied = load_pretrained(build("unet-lite", 3, **OPTIONS), path)
    assert "head.weight" in copied


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


@pytest.mark.parametrize("writer", [pickle.dump, torch.save])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_pickles_are_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: object, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path(name).open("wb") as stream:
        writer({"weights": _Bomb()}, stream)  # type: ignore[operator]
    with pytest.raises(UntrustedArtifact, match="pickle"):
        load_checkpoint(Path(name))
    assert not Path("executed").exists()


def test_the_bomb_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(_Bomb()))
    assert Path("executed").exists()


@pytest.mark.parametrize("keep", [1, 7, 100, -1])
def test_truncated(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    sidecar_path(path).unlink()
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_the_card(path: Path) -> None:
    rewrite(path, **{"head.bias": torch.zeros(7)})
    with pytest.raises(CorruptArtifact, match=r"head\.bias of shape \(3,\) .* found \(7,\)"):
        load_checkpoint(path)


def test_weights_that_are_not_finite(path: Path) -> None:
    rewrite(path, **{"head.bias": torch.tensor([0.0, float("nan"), 0.0])})
    with pytest.raises(CorruptArtifact, match=r"head\.bias holds NaN"):
        load_checkpoint(path)


def test_a_card_of_a_huge_network_costs_nothing(path: Path) -> None:
    """The shapes are compared before memory is taken: this network would take gigabytes."""
    rewrite(path, CARD.model_copy(update={"options": {"width": 256, "depth": 6}}))
    begun = time.process_time()
    with pytest.raises(CorruptArtifact, match="by its card"):
        load_checkpoint(path)
    # Filling 40 GB with random numbers takes minutes; this is no measurement.
    assert time.process_time() - begun < 20


def test_cards_that_say_nothing(path: Path) -> None:
    rewrite(path, None)
    with pytest.raises(MismatchedArtifact, match=r"no edgeseg\.card"):
        load_checkpoint(path)
    rewrite(path, "{")
    with pytest.raises(CorruptArtifact, match="not valid JSON"):
        load_checkpoint(path)
    rewrite(path, CARD.model_copy(update={"arch": "resnet"}))
    with pytest.raises(CorruptArtifact, match="describes no network"):
        load_checkpoint(path)


def test_others_may_read_a_checkpoint_as_the_umask_says(trained: Path) -> None:
    umask = os.umask(0o022)
    os.umask(umask)
    assert (trained / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_becomes_no_checkpoint(
    model: nn.Module, tmp_path: Path, value: float
) -> None:
    """The good one that is there stays as it is."""
    target = tmp_path / "model.safetensors"
    save_checkpoint(target, model, CARD)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with torch.no_grad():
        model.get_parameter("head.bias")[0] = value
    with pytest.raises(NonFiniteOutput, match="not written, since NaN or infinity is in head"):
        save_checkpoint(target, model, CARD)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_tensor_too_many(path: Path) -> None:
    rewrite(path, extra=torch.zeros(1))
    with pytest.raises(CorruptArtifact, match=r"extra of shape none"):
        load_checkpoint(path)


def test_weights_of_another_type(path: Path) -> None:
    rewrite(path, **{"head.bias": torch.zeros(3, dtype=torch.float16)})
    with pytest.raises(CorruptArtifact, match=r"float32, found torch\.float16"):
        load_checkpoint(path)
