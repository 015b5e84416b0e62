"""Read the headers of weight files without the libraries that load them.

Nothing here hands bytes to a deserialiser: of safetensors the JSON header is read, of ONNX the
fields that describe it, of a TensorRT plan its first bytes.
"""

from __future__ import annotations

import math
import mmap
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from edgeseg.artifacts.card import CARD_KEY
from edgeseg.artifacts.documents import Document, first_problem, printable
from edgeseg.artifacts.files import MAX_JSON_BYTES, open_file
from edgeseg.artifacts.wire import Field as WireField
from edgeseg.artifacts.wire import WireReader
from edgeseg.errors import CorruptArtifact, UntrustedArtifact

MAX_TEXT_BYTES = 1024**2
"""Limit in bytes for one text in an ONNX file: a card has a few hundred, a name fewer."""

_SAFETENSORS_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_ONNX_TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    16: "bfloat16", 17: "float8e4m3fn", 21: "uint4", 22: "int4",
}  # fmt: skip
_AGAIN = "make it again with edgeseg train, export or build, or copy it again"


class Port(Document):
    """An input or output of a network; dimensions that are not fixed are named."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class FileContents(Document):
    """FileContents of a weight file, read without the library that runs it.

    ``parameters`` counts the elements of all weights, ``elements`` those of each type.
    """

    format: str
    producer: str | None = None
    opsets: dict[str, int] = Field(default_factory=dict)
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    operators: dict[str, int] = Field(default_factory=dict)
    tensors: int | None = None
    parameters: int | None = None
    elements: dict[str, int] = Field(default_factory=dict)


_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Tensor(Document):
    """One entry of a safetensors header."""

    dtype: str
    shape: Annotated[tuple[_Count, ...], Field(max_length=64)]
    data_offsets: tuple[_Count, _Count]


class _Header(Document):
    """The header of safetensors: tensors by name, and texts under ``__metadata__``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Tensor]

    metadata: dict[str, str] = Field(default_factory=dict, alias="__metadata__")


def is_pickle(path: Path) -> bool:
    """Whether a file was written by ``torch.save``: a zip since PyTorch 1.6, a pickle before.

    Raises:
        UsageError: No such file.
    """
    with open_file(path) as stream:
        return _is_pickle(stream.read(9))


def _is_pickle(start: bytes) -> bool:
    # safetensors begins with the length of its header, which may look like a pickle's first byte.
    return start.startswith((b"PK\x03\x04", b"\x80")) and start[8:] != b"{"


def read_safetensors(path: Path) -> tuple[FileContents, str | None]:
    """Read the contents of a checkpoint and the text of its card.

    https://github.com/huggingface/safetensors#format: eight bytes of length, JSON, tensors.

    Raises:
        CorruptArtifact: It is not a safetensors file, or its tensors do not fill it exactly.
        UntrustedArtifact: It is a pickle.
    """
    with open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(9)
        if _is_pickle(start):
            raise UntrustedArtifact(
                f"{path} is a pickle or a zip archive, and loading it would run the code it "
                "holds; edgeseg reads safetensors",
                hint="save the state dict with safetensors.torch.save_file where you trust the "
                "file",
            )
        length = int.from_bytes(start[:8], "little")
        # A length of none would read all there is.
        if len(start) < 9 or not 2 <= length <= min(size - 8, MAX_JSON_BYTES):
            raise CorruptArtifact(
                f"{path}: not safetensors (a header of {length} bytes in a file of {size})",
                hint=_AGAIN,
            )
        text = start[8:] + stream.read(length - 1)
    try:
        header = _Header.model_validate_json(text)
    except ValidationError as error:
        raise CorruptArtifact(
            f"{path}: not safetensors ({first_problem(error)})", hint=_AGAIN
        ) from error
    tensors = header.__pydantic_extra__
    _require_filled(path, tensors.values(), size - 8 - length)
    elements = Counter[str]()
    for tensor in tensors.values():
        elements[tensor.dtype] += math.prod(tensor.shape)
    contents = FileContents(
        format="safetensors", tensors=len(tensors), parameters=elements.total(), elements=elements
    )
    return contents, header.metadata.get(CARD_KEY)


def _require_filled(path: Path, tensors: Iterable[_Tensor], size: int) -> None:
    """Each tensor has the bytes that its shape needs, one behind the other up to the end."""
    place = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.data_offsets):
        begin, end = tensor.data_offsets
        bits = _SAFETENSORS_BITS.get(tensor.dtype)
        needed = None if bits is None else math.prod(tensor.shape) * bits // 8
        if begin != place or end < begin or needed not in (None, end - begin):
            raise CorruptArtifact(f"{path}: its tensors overlap or leave gaps", hint=_AGAIN)
        place = end
    if place != size:
        raise CorruptArtifact(
            f"{path}: its tensors take {place} bytes, the file has {size} for them", hint=_AGAIN
        )


def read_onnx(path: Path) -> tuple[FileContents, str | None]:
    """Read the contents of an ONNX network and the text of its card.

    Field numbers are those of ``onnx.proto``.

    Raises:
        CorruptArtifact: It is not a protobuf message, or one without a graph.
    """
    with open_file(path) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _Network(WireReader(data))
        try:
            found.read(len(data))
        except ValueError as error:
            raise CorruptArtifact(f"{path}: not an ONNX network ({error})", hint=_AGAIN) from error
    if found.graphs != 1:
        raise CorruptArtifact(
            f"{path}: not an ONNX network ({found.graphs} graphs in it, expected 1)", hint=_AGAIN
        )
    contents = FileContents(
        format=f"ONNX IR {found.ir_version}",
        producer=" ".join(filter(None, found.producer)) or None,
        opsets=found.opsets,
        inputs=tuple(found.inputs),
        outputs=tuple(found.outputs),
        operators=dict(found.operators.most_common(64)),
        tensors=found.tensors,
        parameters=found.elements.total(),
        elements=found.elements,
    )
    return contents, found.metadata.get(CARD_KEY)


class _Network:
    """Collects what describes an ONNX file from its fields."""

    def __init__(self, reader: WireReader) -> None:
        self._reader = reader
        self.graphs = self.ir_version = self.tensors = 0
        self.producer = ["", ""]
        self.opsets: dict[str, int] = {}
        self.metadata: dict[str, str] = {}
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.operators: Counter[str] = Counter()
        self.elements: Counter[str] = Counter()

    def read(self, size: int) -> None:
        """ModelProto; raises ValueError where it is none."""
        for field in self._reader.fields(0, size):
            if field.number == 1 and field.value is not None:
                self.ir_version = field.value
            elif field.number in (2, 3):
                self.producer[field.number - 2] = self._text(field)
            elif field.number == 7:
                self.graphs += 1
                self._graph(field)
            elif field.number == 8:
                inside = self._inside(field)
                domain = self._text(inside[1]) if 1 in inside else ""
                self.opsets[domain or "ai.onnx"] = self._number(inside.get(2))
            elif field.number == 14:
                inside = self._inside(field)
                if 1 in inside and 2 in inside:
                    self.metadata[self._text(inside[1])] = self._text(inside[2])

    def _graph(self, graph: WireField) -> None:
        for field in self._reader.fields(graph.start, graph.stop):
            if field.number == 1:
                inside = self._inside(field)
                self.operators[self._text(inside[4]) if 4 in inside else ""] += 1
            elif field.number == 5:
                self._tensor(field)
            elif field.number in (11, 12):
                (self.inputs if field.number == 11 else self.outputs).append(self._port(field))

    def _tensor(self, tensor: WireField) -> None:
        """An initialiser: dims are field 1, one by one or packed, and the type field 2."""
        count, kind = 1, 0
        for field in self._reader.fields(tensor.start, tensor.stop):
            if field.number == 1:
                for dimension in self._reader.varints(field):
                    count = min(count * dimension, 2**63)
            elif field.number == 2 and field.value is not None:
                kind = field.value
        self.tensors += 1
        self.elements[_ONNX_TYPES.get(kind, f"type {kind}")] += count

    def _port(self, info: WireField) -> Port:
        """ValueInfoProto → TypeProto → Tensor → TensorShapeProto → Dimension."""
        inside = self._inside(info)
        tensor = self._inside(self._inside(inside.get(2)).get(1))
        kind = self._number(tensor.get(1))
        shape: list[int | str] = []
        if dimensions := tensor.get(2):
            for field in self._reader.fields(dimensions.start, dimensions.stop):
                parts = self._inside(field)
                named = self._text(parts[2]) if 2 in parts else "?"
                shape.append(self._number(parts[1]) if 1 in parts else named)
        return Port(
            name=self._text(inside[1]) if 1 in inside else "",
            dtype=_ONNX_TYPES.get(kind, f"type {kind}"),
            shape=tuple(shape),
        )

    def _inside(self, message: WireField | None) -> dict[int, WireField]:
        """The last field of each number, which is the one that counts."""
        if message is None or message.value is not None:
            return {}
        return {f.number: f for f in self._reader.fields(message.start, message.stop)}

    def _text(self, field: WireField) -> str:
        return self._reader.text(field, MAX_TEXT_BYTES)

    @staticmethod
    def _number(field: WireField | None) -> int:
        return (field.value or 0) if field else 0


def read_plan(path: Path) -> FileContents:
    """Read the header of a TensorRT plan.

    Measured on plans of TensorRT-RTX 1.7.1: ``vtrt``, the size of the file as 64 bits at
    offset 16, and the version, a byte a number, at offset 24. Of others the mark is all that
    is read.

    Raises:
        CorruptArtifact: It is shorter than it says, or than any plan.
    """
    with open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(64)
    if len(start) < 64:
        raise CorruptArtifact(f"{path}: no TensorRT engine ({size} bytes)", hint=_AGAIN)
    mark = printable(start[:4].decode("latin-1"))
    if start[:4] != b"vtrt":
        return FileContents(format=f"engine marked {mark!r}")
    version = ".".join(str(number) for number in start[24:27])
    stated = int.from_bytes(start[16:24], "little")
    if start[24:26] == bytes([1, 7]) and stated != size:
        raise CorruptArtifact(
            f"{path}: the engine says it has {stated} bytes, the file has {size}", hint=_AGAIN
        )
    return FileContents(format="TensorRT-RTX plan", producer=f"TensorRT-RTX {version}")
