"""The side-car ``ARTEFACT.json``: what an artefact is, and the hash that vouches for its bytes.

A flipped bit in a weight file loads silently in every runtime; only a hash finds it. An
engine file is native code, and its own validity marks are no tamper check. So a side-car is
written beside every artefact and :func:`verify` is called before any runtime sees the bytes.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeseg.artifacts import require_file, sha256_file
from edgeseg.card import ModelCard, Sha256
from edgeseg.documents import Document, load
from edgeseg.errors import CorruptArtifact, UntrustedArtifact

Runtime = Literal["torch", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]


class GateResult(Document):
    """Outcome of comparing an engine of reduced precision with FP32.

    ``metric`` is ``mean_iou`` on labelled pictures, ``pixel_agreement`` on unlabelled ones;
    ``reference``, ``value``, ``drop`` and ``limit`` are fractions of 1, ``drop`` positive
    where accuracy was lost. ``judged_on`` names the runtime that computed ``value``: the
    engine's own where it can run here.
    """

    metric: Literal["mean_iou", "pixel_agreement"]
    reference: float
    value: float
    drop: float
    limit: float
    passed: bool
    images: int
    judged_on: str


class PrecisionReport(Document):
    """What precision the artefact really has, counted in its graph.

    ``low_precision_share`` is the share of multiply-accumulates whose operands are of the
    reduced precision, ``low_precision_weights`` the share of weight elements; ``kept`` names
    the nodes that compute and were left in higher precision.
    """

    precision: Literal["fp32", "fp16", "int8"]
    low_precision_share: float
    low_precision_weights: float
    kept: tuple[str, ...] = ()


class SideCar(Document):
    """What an artefact is: its card, its hash, and how it was made.

    An engine that was tuned on a GPU belongs to it: ``gpu`` is its name,
    ``compute_capability`` such as ``sm_87``, ``cuda_version`` and ``driver_version`` those it
    was built with, ``platform`` such as ``linux x86_64``. None where none of that binds it.
    """

    schema_version: Literal[1] = 1
    artifact_sha256: Sha256
    card: ModelCard
    runtime: Runtime
    runtime_version: str
    onnx_sha256: Sha256 | None = None
    targets: tuple[str, ...] = ()
    gpu: str | None = None
    compute_capability: str | None = None
    cuda_version: str | None = None
    driver_version: str | None = None
    platform: str | None = None
    precision: PrecisionReport | None = None
    calibration_set: Sha256 | None = None
    build_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    gate: GateResult | None = None
    created: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))


def sidecar_path(artifact: Path) -> Path:
    """``ARTEFACT.json`` beside the artefact."""
    return artifact.with_name(artifact.name + ".json")


def read(artifact: Path) -> SideCar | None:
    """The side-car of ``artifact``, None if there is none; raises as ``documents.load``."""
    path = sidecar_path(artifact)
    return load(SideCar, path) if path.exists() else None


def verify(artifact: Path, *, required: bool) -> SideCar | None:
    """Check the bytes of ``artifact`` against its side-car and return that.

    Args:
        artifact: The file about to be loaded.
        required: Refuse a file without side-car: for formats that hold native code.

    Raises:
        UsageError: There is no such file.
        CorruptArtifact: The bytes are not those the side-car vouches for.
        UntrustedArtifact: There is no side-car and one is required.
    """
    require_file(artifact)
    sidecar = read(artifact)
    if sidecar is None:
        if required:
            raise UntrustedArtifact(
                f"{artifact} has no side-car {sidecar_path(artifact).name}, so nothing vouches "
                "for its bytes; an engine is native code",
                mend="build it here with `edgeseg build`, or copy the side-car along",
            )
        return None
    found = sha256_file(artifact)
    if found != sidecar.artifact_sha256:
        raise CorruptArtifact(
            f"{artifact}: its bytes changed since it was made (sha256 {found[:12]}…, "
            f"the side-car says {sidecar.artifact_sha256[:12]}…)",
            mend="make it again with edgeseg build or export, or copy file and side-car again",
        )
    return sidecar
