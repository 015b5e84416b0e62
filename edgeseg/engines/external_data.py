"""Read metadata and external weight files of ONNX files without the onnx package.

ONNX tensors may name a file beside the network that holds their bytes. A hostile network names
``../../etc/shadow``; newer releases of ONNX Runtime refuse that, older ones read it. The core
install has no onnx package to ask, and a card should be known before a runtime is loaded, so
the few fields that matter are read from the protobuf wire format (:mod:`edgeseg.artifacts.wire`,
numbers from ``onnx.proto``).
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from edgeseg.artifacts.files import open_file, require_text
from edgeseg.artifacts.wire import WireReader
from edgeseg.errors import CorruptArtifact

_Message = dict[int, "str | _Message"]

# Field number → the message it holds. Strings stop the descent and are yielded.
_ENTRY: _Message = {1: "key", 2: "value"}
_TENSOR: _Message = {13: _ENTRY}
_SPARSE: _Message = {1: _TENSOR, 2: _TENSOR}
_ATTRIBUTE: _Message = {5: _TENSOR, 10: _TENSOR, 22: _SPARSE, 23: _SPARSE}
_NODE: _Message = {5: _ATTRIBUTE}
_GRAPH: _Message = {1: _NODE, 5: _TENSOR, 15: _SPARSE}
_FUNCTION: _Message = {7: _NODE, 11: _ATTRIBUTE}  # Field 11: defaults of its attributes.
_TRAINING: _Message = {1: _GRAPH, 2: _GRAPH}
_MODEL: _Message = {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION}
_METADATA: _Message = {14: _ENTRY}
# An If or Loop holds graphs, whose nodes may hold further ones.
_ATTRIBUTE[6] = _ATTRIBUTE[11] = _GRAPH

_MAX_DEPTH = 64
_MAX_ENTRY = 1024**2
"""Largest key or value in bytes: a card of many classes has about 10,000, a path 4096."""


def require_local_weights(path: Path) -> None:
    """Check that a network's weights lie in its own folder.

    They must be whole files of that folder. A link, symbolic or hard, may have been planted to
    another's file, and a name without a file may be an address in memory for ONNX Runtime.

    Raises:
        UsageError: Runtimes cannot handle the network's file name.
        CorruptArtifact: It refers to a file elsewhere, or is not a protobuf message.
    """
    require_text(path)
    for location in external_locations(path):
        if fault := _fault(path.parent, location):
            raise CorruptArtifact(
                f"{path}: its external data {location!r} {fault}",
                hint="export it again with `edgeseg export --overwrite`: that keeps weights inside",
            )


def _fault(folder: Path, location: str) -> str:
    """Describe what is wrong with a file of external data; empty if nothing is."""
    relative = PurePosixPath(location.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts:
        return "lies outside of its folder"
    place = folder
    try:
        # A backslash is part of a name here, whatever it was where the network was exported.
        for part in PurePosixPath(location).parts:
            place = place / part
            status = place.lstat()
            if stat.S_ISLNK(status.st_mode):
                return f"is reached by a symbolic link ({place})"
    except (OSError, ValueError):
        return "is not there"
    if place == folder or not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if status.st_nlink > 1:
        return f"is a hard link: the file has {status.st_nlink} names (`cp` makes one of its own)"
    return ""


def external_locations(path: Path) -> list[str]:
    """Names of the external files that hold tensors of the network at ``path``.

    Raises:
        CorruptArtifact: The file is not a protobuf message.
    """
    return [value for key, value in _read(path, _MODEL) if key == "location"]


def metadata_props(path: Path) -> dict[str, str]:
    """Read ``metadata_props``; raises the errors of :func:`external_locations`."""
    return dict(_read(path, _METADATA))


def _read(path: Path, message: _Message) -> list[tuple[str, str]]:
    with open_file(path) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return list(_entries(WireReader(data), 0, len(data), message, 0))
        except ValueError as error:
            raise CorruptArtifact(
                f"{path}: not an ONNX network ({error})",
                hint="name the .onnx file that `edgeseg export` wrote, or copy it again",
            ) from error


def _entries(
    reader: WireReader, start: int, stop: int, message: _Message, depth: int
) -> Iterator[tuple[str, str]]:
    """Yield all key-value entries below one message."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    entry: dict[str, str] = {}
    for field in reader.fields(start, stop):
        if field.value is not None:
            continue
        inner = message.get(field.number)
        if isinstance(inner, dict):
            yield from _entries(reader, field.start, field.stop, inner, depth + 1)
        elif isinstance(inner, str):
            entry[inner] = reader.text(field, _MAX_ENTRY)
    if message is _ENTRY:
        yield entry.get("key", ""), entry.get("value", "")
