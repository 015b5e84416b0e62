"""Import a network made elsewhere into a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import refuse_to_replace, sha256_bytes, write_atomic
from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.artifacts.workshop import install, workshop
from edgeseg.console import Track, silent
from edgeseg.errors import UsageError
from edgeseg.importing.reading import read
from edgeseg.importing.report import document_of, lines_of
from edgeseg.importing.wrapping import Wrapped, wrap
from edgeseg.options.importing import ImportConfig
from edgeseg.precision.graph import precision_report
from edgeseg.runs import NETWORK, RUNS, prepare_run


@dataclass(frozen=True)
class Imported:
    """Result of an import: ``model.onnx``, and how it was made."""

    path: Path
    wrapped: Wrapped

    @property
    def card(self) -> ModelCard:
        """The card of the network."""
        return self.wrapped.card

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """What was found and decided, as pairs of a title and a text."""
        return lines_of(self.wrapped)

    def to_dict(self) -> dict[str, Any]:
        """Return what was found and decided as JSON types."""
        return document_of(self.wrapped, self.path)


def import_network(
    path: Path,
    run: Path | None = None,
    config: ImportConfig | None = None,
    *,
    overwrite: bool = False,
    track: Track = silent,
) -> Imported:
    """Write ``RUN/model.onnx``, with card and side-car, from an ONNX network made elsewhere.

    Args:
        path: The network.
        run: The folder to write into; ``runs/STEM`` of the file by default.
        config: What the user states.
        overwrite: Replace an earlier run.
        track: Progress.

    Raises:
        UsageError: An option does not fit the network, or something needed is not stated.
        CorruptArtifact: The file is no ONNX network.
        MismatchedArtifact: It is no network for semantic segmentation, or cannot be built here.
        InferenceError: The wrapped network differs from the original.
    """
    path = Path(path)
    run = run or RUNS / path.stem
    target = run / NETWORK
    _refuse(path, run, target, overwrite=overwrite)
    wrapped = wrap(read(path), config or ImportConfig(), track)
    with prepare_run(run, "imported", overwrite=overwrite):
        write_wrapped(wrapped, target)
    return Imported(target, wrapped)


def _refuse(path: Path, run: Path, target: Path, *, overwrite: bool) -> None:
    refuse_to_replace(target, sidecar_path(target), overwrite=overwrite, inputs=[path])
    if path.exists() and path.resolve().parent == run.resolve():
        raise UsageError(
            f"{path} lies in the run folder that would be written, {run}",
            hint="choose another folder with --run",
        )


def write_wrapped(wrapped: Wrapped, target: Path) -> None:
    """Write a network and its side-car."""
    data = wrapped.data
    made = SideCar(
        artifact_sha256=sha256_bytes(data),
        artifact_bytes=len(data),
        card=wrapped.card,
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
        precision=precision_report(wrapped.model),
    )
    with workshop(target.parent) as shop:
        path = shop / target.name
        write_atomic(path, data)
        made.save(sidecar_path(path))
        install(path, target.parent)
