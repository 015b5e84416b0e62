"""The ``export`` command: write a checkpoint as ONNX, or a model for Triton."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json, Overwrite
from edgeseg.cli.output import finish
from edgeseg.errors import UsageError
from edgeseg.options.base import Option
from edgeseg.options.serving import Serving


@flat
def export(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint or run folder; default: the newest run. "
            "With --triton also a network or an engine."
        ),
    ] = None,
    out: Annotated[
        Path | None, Option("Output file; default: model.onnx beside the checkpoint.")
    ] = None,
    dynamic_batch: Annotated[bool, Option("Accept any batch size instead of 1.")] = False,
    dynamic_size: Annotated[
        bool, Option("Accept any size that is a multiple of the network's stride.")
    ] = False,
    triton: Annotated[
        Path | None, Option("Also add the model to this Triton Inference Server repository.")
    ] = None,
    *,
    serving: Serving,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a checkpoint to ONNX and check it against PyTorch."""
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.artifacts.partials import alone
    from edgeseg.artifacts.sidecar import sidecar_path, verify
    from edgeseg.runs import CHECKPOINT, NETWORK, resolve

    if triton is None and serving != Serving():
        raise UsageError(
            "--name, --max-batch, --queue-delay and --instances say how Triton serves a model",
            hint="add --triton DIR, or omit them",
        )
    # An imported run has no checkpoint; of other runs the network may be newer than it.
    imported = checkpoint is not None and not (checkpoint / CHECKPOINT).exists()
    names = (CHECKPOINT, NETWORK) if imported else (CHECKPOINT,)
    path = resolve(checkpoint, names, "edgeseg train --data DIR")
    if path.suffix in (".onnx", ".engine"):
        if triton is None:
            raise UsageError(
                f"{path} is already exported",
                hint=f"edgeseg build {path}, or --triton DIR to serve it",
            )
        if out or dynamic_batch or dynamic_size:
            raise UsageError(
                f"{path} is already exported; --out, --dynamic-batch and --dynamic-size "
                "are for a checkpoint",
                hint="name model.safetensors, or omit them",
            )
        finish(as_json, _served(path, triton, serving, overwrite=overwrite))
        return
    target = out or path.with_name(NETWORK)
    refuse_to_replace(target, sidecar_path(target), overwrite=overwrite, inputs=[path])
    verify(path, required=False)  # Before torch is imported, which takes seconds.
    from edgeseg.export.network import export_onnx

    with alone(target, doing="writes"):
        result = export_onnx(path, target, dynamic_batch=dynamic_batch, dynamic_size=dynamic_size)
    sizes = result.card.input.open_size
    finish(
        as_json,
        {
            "network": str(result.path),
            "bytes": result.path.stat().st_size,
            **({"open_size": sizes.model_dump()} if sizes else {}),
            "parity": asdict(result.parity),
            **(_served(target, triton, serving, overwrite=overwrite) if triton else {}),
        },
    )


def _served(
    artifact: Path, repository: Path, serving: Serving, *, overwrite: bool
) -> dict[str, object]:
    """Add the artefact to the Triton repository; return the entries for the JSON result."""
    from edgeseg.export.triton import write_repository

    made = write_repository(artifact, repository, serving, overwrite=overwrite)
    return {
        "model": made.model,
        "version": made.version,
        "folder": str(made.folder),
        "backend": made.backend,
        "max_batch": made.max_batch,
    }
