from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeseg import sidecar
from edgeseg.artifacts import sha256_bytes, write_atomic
from edgeseg.card import ModelCard
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UntrustedArtifact, UsageError


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path, data = tmp_path / "model.fp16.engine", os.urandom(4096)
    write_atomic(path, data)
    card = ModelCard.model_validate(
        {
            "name": "n",
            "arch": "unet-lite",
            "classes": {"names": ["a", "b"]},
            "input": {"height": 64, "width": 64},
        }
    )
    sidecar.SideCar(
        artifact_sha256=sha256_bytes(data),
        card=card,
        runtime="tensorrt-rtx",
        runtime_version="1.7.1",
    ).save(sidecar.sidecar_path(path))
    return path


def test_untouched_bytes_pass(artifact: Path) -> None:
    found = sidecar.verify(artifact, required=True)
    assert found is not None
    assert found.card.name == "n"


@pytest.mark.parametrize("place", [0, 2048, 4095])
def test_one_flipped_bit_is_found(artifact: Path, place: int) -> None:
    data = bytearray(artifact.read_bytes())
    data[place] ^= 1
    artifact.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="changed since it was made"):
        sidecar.verify(artifact, required=True)


def test_no_side_car_is_refused_only_where_one_is_required(artifact: Path) -> None:
    sidecar.sidecar_path(artifact).unlink()
    assert sidecar.verify(artifact, required=False) is None
    with pytest.raises(UntrustedArtifact, match="no side-car") as caught:
        sidecar.verify(artifact, required=True)
    assert "edgeseg build" in (caught.value.mend or "")


def test_damaged_or_foreign_side_car(artifact: Path) -> None:
    path = sidecar.sidecar_path(artifact)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(CorruptArtifact, match="not valid JSON"):
        sidecar.verify(artifact, required=True)
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 7', 1))
    with pytest.raises(MismatchedArtifact, match="schema version 7"):
        sidecar.verify(artifact, required=True)


def test_missing_artifact(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        sidecar.verify(tmp_path / "model.onnx", required=False)
