"""Describe an artefact without loading it.

Works where the runtime, the GPU, torch and onnx are missing, and on files that are damaged:
what is wrong stands first, and the rest is told as far as it can be read safely. Nothing here
hands bytes to a deserialiser.
"""

from __future__ import annotations

from pathlib import Path

from edgeseg.errors import UsageError
from edgeseg.inspection.document import Inspection
from edgeseg.inspection.gathering import inspect_file

__all__ = ["Inspection", "inspect", "inspect_run"]


def inspect(path: Path) -> Inspection:
    """Inspect one file.

    Args:
        path: ``model.safetensors``, ``*.onnx``, ``*.engine``, ``*.ranges.json``, the manifest of
            a calibration set, or a side-car.

    Raises:
        UsageError: There is no such file, or no kind of file that edgeseg knows.
    """
    return inspect_file(Path(path))


def inspect_run(folder: Path) -> tuple[Inspection, ...]:
    """Inspect each artefact in a folder, in the order in which they were created.

    Raises:
        UsageError: There is none.
    """
    patterns = ("*.safetensors", "*.ranges.json", "*.onnx", "*.engine")
    found = [
        path
        for pattern in patterns
        for path in sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
        # state.safetensors is what a training resumes from, not a network.
        if not path.is_dir() and not path.name.startswith("state.")
    ]
    if not found:
        raise UsageError(
            f"{folder} holds no artefact of edgeseg", hint="edgeseg train --data DIR makes one"
        )
    return tuple(inspect_file(path) for path in found)
