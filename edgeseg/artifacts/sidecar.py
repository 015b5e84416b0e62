"""The side-car ``ARTEFACT.json``, which describes an artefact and holds its hash.

A flipped bit in a weight file loads silently in every runtime; only a hash finds it. An
engine file is native code, and its own validity marks do not detect tampering. So a side-car is
written beside every artefact and :func:`verify` is called before any runtime sees the bytes.
"""

from __future__ import annotations

import os
import shlex
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgeseg.artifacts.card import ModelCard, Sha256
from edgeseg.artifacts.documents import Document, parse
from edgeseg.artifacts.files import (
    open_file,
    read_capped,
    require_file,
    sha256_bytes,
    sha256_file,
    stranger,
)
from edgeseg.errors import CorruptArtifact, UntrustedArtifact

Runtime = Literal["torch", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
BuildRuntime = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
"""Runtimes that engines are built for: all but PyTorch, which runs checkpoints."""
ComputesIn = Literal["fp32", "fp16", "bf16"]

MAX_ARTIFACT_BYTES = 8 * 1024**3
"""Maximum bytes to hash if the side-car states no size; larger than any edgeseg network."""

_AGAIN = "make it again with edgeseg build or export (--overwrite), or copy both files again"


class WorstClass(Document):
    """The class that lost most, as fractions of 1.

    ``reference`` and ``value`` are its intersection over union in FP32 and in the engine,
    ``interval`` holds ``drop`` with 95 % confidence over other pictures of the kind; None where
    fewer pictures show the class than can tell. ``pictures`` is the number of those that do.
    ``limit`` is None where the loss of single classes is not limited.
    """

    name: str
    reference: float
    value: float
    drop: float
    limit: float | None
    interval: tuple[float, float] | None
    pictures: int

    def describe(self) -> str:
        """State the loss in a clause, with how sure it is."""
        falls = self.drop > 0
        clause = (
            f"class {self.name!r} {'falls' if falls else 'goes'} from an IoU of "
            f"{self.reference:.4f} in FP32 to {self.value:.4f}"
        )
        clause += f", a loss of {self.drop:.4f}" if falls else ", and no class lost more"
        if self.limit is not None and falls:
            clause += f" where {self.limit:.4f} is allowed"
        shown = f"{self.pictures} pictures show it" if self.pictures > 1 else "1 picture shows it"
        if self.interval is None:
            return f"{clause} ({shown}, too few to tell)"
        low, high = self.interval
        return f"{clause} ({shown}; 95 % interval {low:.4f} to {high:.4f})"


class GateResult(Document):
    """Outcome of comparing an engine of reduced precision with FP32.

    ``metric`` is ``mean_iou`` on labelled pictures, ``pixel_agreement`` on unlabelled ones;
    ``reference``, ``value``, ``drop`` and ``limit`` are fractions of 1, ``drop`` positive
    where accuracy was lost. ``judged_on`` names the runtime that computed ``value``: the
    engine's own where it can run here. ``passed`` covers ``worst_class`` too, which is None
    on unlabelled pictures.
    """

    metric: Literal["mean_iou", "pixel_agreement"]
    reference: float
    value: float
    drop: float
    limit: float
    passed: bool
    images: int
    judged_on: str
    worst_class: WorstClass | None = None


class PrecisionReport(Document):
    """The actual precision of an artefact, counted in its graph.

    ``low_precision_share`` is the share of multiply-accumulates whose operands are of the
    reduced precision, ``low_precision_weights`` the share of weight elements; ``kept`` names
    the nodes that compute and were left in higher precision.
    """

    precision: Literal["fp32", "fp16", "int8"]
    low_precision_share: float
    low_precision_weights: float
    kept: tuple[str, ...] = ()


class SideCar(Document):
    """Description of an artefact: its card, its hash, and how it was made.

    An engine that was tuned on a GPU belongs to it: ``gpu`` is its name,
    ``compute_capability`` such as ``sm_87``, ``cuda_version`` and ``driver_version`` those it
    was built with, ``platform`` such as ``linux x86_64``. None where none of that binds it.

    ``computes_in`` is what its floating layers really computed in on the machine that built it,
    where the runtime chooses that by itself, as OpenVINO does.
    """

    schema_version: Literal[1] = 1
    artifact_sha256: Sha256
    artifact_bytes: Annotated[int, Field(ge=1)] | None = None
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
    computes_in: ComputesIn | None = None
    calibration_set: Sha256 | None = None
    build_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    gate: GateResult | None = None
    created: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))


def sidecar_path(artifact: Path) -> Path:
    """Return the path of an artefact's side-car, ``ARTEFACT.json``."""
    return artifact.with_name(artifact.name + ".json")


def read(artifact: Path, *, follow: bool = True) -> SideCar | None:
    """Read an artefact's side-car, None if there is none; raises as ``documents.load``."""
    path = sidecar_path(artifact)
    if not os.path.lexists(path):
        return None
    return parse(SideCar, read_capped(path, follow=follow), str(path))


def verify(artifact: Path, *, required: bool) -> SideCar | None:
    """Check an artefact's bytes against its side-car and return the side-car.

    For what is data: checkpoints and networks. A symbolic link is followed where the side-car
    beside it vouches for the bytes, wherever they lie: large files live on other disks. One
    that nothing vouches for is refused. Native code takes :func:`verified_bytes`.

    Args:
        artifact: File to check before loading.
        required: Refuse a file without a side-car.

    Raises:
        UsageError: There is no such file.
        CorruptArtifact: The bytes are not those the side-car vouches for.
        UntrustedArtifact: There is no side-car and one is required, or it is a link.
    """
    artifact = require_file(artifact)
    sidecar = read(artifact)
    if sidecar is None:
        if required:
            raise _nothing_vouches(artifact)
        if artifact.is_symlink():
            raise UntrustedArtifact(
                f"{artifact} is a symbolic link to {artifact.readlink()}, and no side-car "
                f"{sidecar_path(artifact).name} beside it vouches for the bytes",
                hint=f"name the file itself: {artifact.resolve()}, or link its side-car as well",
            )
        return None
    _require_bytes(artifact, artifact.stat().st_size, sidecar)
    _require_hash(artifact, sha256_file(artifact), sidecar)
    return sidecar


def verified_bytes(artifact: Path) -> tuple[bytes, SideCar]:
    """The bytes of an engine, read once and hashed as read, and the side-car that vouches for them.

    An engine is native code: whoever can alter it runs code as the user. So what the runtime
    gets are the very bytes that were hashed, and not a path whose file may be another by then;
    neither engine nor side-car may be a symbolic link, and nobody but the user and root may be
    able to alter them or to replace them in their folder (:mod:`edgeseg.artifacts.files`).

    Raises:
        UsageError: There is no such file.
        CorruptArtifact: Empty, no regular file, or not the bytes the side-car vouches for.
        UntrustedArtifact: No side-car, a symbolic link, or others may write it.
    """
    artifact = Path(artifact)
    with open_file(artifact, follow=False) as stream:
        status = os.fstat(stream.fileno())
        if status.st_size == 0:
            raise CorruptArtifact(
                f"{artifact} is empty",
                hint="build it again with `edgeseg build --overwrite`, or copy it again",
            )
        sidecar = read(artifact, follow=False)
        if sidecar is None:
            raise _nothing_vouches(artifact)
        for path, facts in (
            (artifact.parent, artifact.parent.stat()),
            (artifact, status),
            (sidecar_path(artifact), sidecar_path(artifact).lstat()),
        ):
            _refuse_strangers(artifact, path, facts)
        _require_bytes(artifact, status.st_size, sidecar)
        data = stream.read(status.st_size + 1)
    _require_hash(artifact, sha256_bytes(data), sidecar)
    return data, sidecar


def _refuse_strangers(artifact: Path, path: Path, status: os.stat_result) -> None:
    """Refuse an engine, side-car or folder that other users can alter."""
    if found := stranger(status):
        what = "it" if path == artifact else path
        raise UntrustedArtifact(
            f"{artifact} is native code, and {what} {found.fault}",
            hint=f"{found.hint} {shlex.quote(str(path))}, then build the engine again "
            "unless you know who wrote it",
        )


def _require_bytes(artifact: Path, found: int, sidecar: SideCar) -> None:
    """Cheap, and before any byte is read: a file of the wrong size is not worth hashing."""
    if found > MAX_ARTIFACT_BYTES:
        raise CorruptArtifact(
            f"{artifact}: expected at most {MAX_ARTIFACT_BYTES} bytes, found {found}", hint=_AGAIN
        )
    if sidecar.artifact_bytes not in (None, found):
        raise CorruptArtifact(
            f"{artifact}: its bytes changed since it was made ({found} of them, the side-car "
            f"says {sidecar.artifact_bytes})",
            hint=_AGAIN,
        )


def _require_hash(artifact: Path, found: str, sidecar: SideCar) -> None:
    if found != sidecar.artifact_sha256:
        raise CorruptArtifact(
            f"{artifact}: its bytes changed since it was made (sha256 {found[:12]}…, "
            f"the side-car says {sidecar.artifact_sha256[:12]}…)",
            hint=_AGAIN,
        )


def _nothing_vouches(artifact: Path) -> UntrustedArtifact:
    return UntrustedArtifact(
        f"{artifact} has no side-car {sidecar_path(artifact).name}, so nothing vouches "
        "for its bytes; an engine is native code",
        hint="build it here with `edgeseg build`, or copy the side-car along",
    )
