"""Write model repositories for NVIDIA's Triton Inference Server from networks or engines.

::

    REPOSITORY/NAME/config.pbtxt      inference.ModelConfig as protobuf text
    REPOSITORY/NAME/labels.txt        one class per line, in the order of the ids
    REPOSITORY/NAME/1/model.onnx      or model.plan

The layout and every field are those of Triton's documents `model_repository.md` and
`model_configuration.md` and of its `model_config.proto`. What a client must know to make the
input and to read the output is in the ``parameters``, which Triton hands out: the
:class:`~edgeseg.artifacts.card.InputSpec` as ``edgeseg.input`` and the classes as
``edgeseg.classes``.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import refuse_to_replace, require_file, sha256_file, write_atomic
from edgeseg.artifacts.sidecar import SideCar, verified_bytes, verify
from edgeseg.artifacts.workshop import workshop
from edgeseg.engines.external_data import external_locations
from edgeseg.engines.network import GraphPort
from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.options.serving import Serving

logger = logging.getLogger(__name__)

Backend = Literal["onnxruntime", "openvino", "tensorrt"]

CONFIG = "config.pbtxt"
LABELS = "labels.txt"
DEFAULT_BATCH = 8
"""Default maximum batch of a network with a dynamic batch."""

_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
_KINDS = {"onnxruntime": "KIND_AUTO", "openvino": "KIND_CPU", "tensorrt": "KIND_GPU"}
"""Triton's OpenVINO back end runs on processors, its TensorRT back end on GPUs."""


@dataclass(frozen=True)
class Served:
    """Result of :func:`write_repository`; ``max_batch`` is 0 if the batch size is fixed."""

    model: str
    version: int
    folder: Path
    backend: Backend
    max_batch: int


@dataclass(frozen=True)
class _Model:
    """An artefact as Triton sees it; ``batch`` is fixed, or None where ``largest`` bounds it.

    ``verified`` are the bytes of an engine as they were hashed: it is native code.
    """

    path: Path
    card: ModelCard
    backend: Backend
    file: str
    input: GraphPort
    output: GraphPort
    batch: int | None
    typical: int | None = None
    largest: int | None = None
    verified: bytes | None = None


def write_repository(
    artifact: Path, repository: Path, serving: Serving | None = None, *, overwrite: bool = True
) -> Served:
    """Add a network or an engine to a model repository, as a new version.

    Args:
        artifact: ``model*.onnx`` (ONNX Runtime, or OpenVINO where it was built for that) or
            ``model*.engine`` of TensorRT.
        repository: Folder that ``tritonserver --model-repository`` is given; made if need be.
            A running Triton finds whole models alone: folders are moved in when complete.
        overwrite: Allow replacing an existing ``config.pbtxt`` that differs from the new one.

    Raises:
        UsageError: No such file, an engine of TensorRT-RTX, a batch that the network does not
            take, or the repository cannot be written.
        ArtifactError: Altered, or it has no card.
        MismatchedArtifact: The repository serves another model by that name.
    """
    serving = serving or Serving()
    model = _read(require_file(Path(artifact)))
    name = serving.name or _name_of(model.card)
    largest = _largest_batch(model, serving.max_batch)
    config = _config(model, name, largest, serving)
    folder = Path(repository) / name
    version = _next_version(folder, config)
    there = folder / CONFIG
    if there.exists() and there.read_text("utf-8") != config:
        refuse_to_replace(there, overwrite=overwrite)
    # Beside the repository, for a polling Triton takes every folder in it for a model.
    with workshop(Path(repository).absolute().parent) as shop:
        made = shop / str(version)
        made.mkdir()
        if model.verified is None:
            shutil.copyfile(model.path, made / model.file)
        else:
            (made / model.file).write_bytes(model.verified)
        if folder.exists():
            write_atomic(folder / CONFIG, config)
            made.rename(folder / str(version))
        else:
            whole = shop / name
            whole.mkdir()
            made.rename(whole / str(version))
            write_atomic(whole / CONFIG, config)
            names = (" ".join(name.split()) for name in model.card.classes.names)
            write_atomic(whole / LABELS, "".join(f"{name}\n" for name in names))
            Path(repository).mkdir(parents=True, exist_ok=True)
            whole.rename(folder)
    return Served(name, version, folder, model.backend, largest)


def _read(path: Path) -> _Model:
    if path.suffix == ".onnx":
        return _network(path)
    if path.suffix == ".engine":
        return _plan(path)
    raise UsageError(
        f"{path}: Triton serves a network .onnx or an .engine, not {path.suffix!r}",
        hint="edgeseg export --triton DIR model.safetensors exports it first",
    )


def _network(path: Path) -> _Model:
    from edgeseg.engines.onnxruntime import OnnxRuntimeEngine

    if weights := external_locations(path):
        raise UsageError(
            f"{path}: its weights lie in {weights[0]!r}; expected one file that holds them",
            hint="export it again with `edgeseg export --overwrite`: that keeps weights inside",
        )
    made = verify(path, required=False)
    for_openvino = made is not None and made.runtime == "openvino"
    with OnnxRuntimeEngine(path, threads=1) as engine:
        source, target = engine.ports
        return _Model(
            path=path,
            card=engine.card,
            backend="openvino" if for_openvino else "onnxruntime",
            file="model.onnx",
            input=source,
            output=target,
            batch=engine.capabilities.batch,
        )


def _plan(path: Path) -> _Model:
    data, made = verified_bytes(path)
    if made.runtime != "tensorrt":
        raise UsageError(
            f"{path} was built by {made.runtime}; Triton's back end runs engines of TensorRT",
            hint="edgeseg build --runtime tensorrt, on the kind of GPU that will serve it",
        )
    smallest, typical, largest = _profile(made)
    source, target = _ports_of_plan(path, made)
    logger.warning(
        "%s runs in the Triton whose TensorRT is %s, on %s; another refuses it",
        path.name,
        made.runtime_version,
        made.gpu or "the GPU it was built on",
    )
    return _Model(
        path=path,
        card=made.card,
        backend="tensorrt",
        file="model.plan",
        input=source,
        output=target,
        batch=largest if smallest == largest else None,
        typical=typical,
        largest=largest,
        verified=data,
    )


def _profile(made: SideCar) -> tuple[int, int, int]:
    """Return the minimum, optimum and maximum batch that an engine was built for."""
    batches = [int(part) for part in str(made.build_options.get("batch", 1)).split(":")]
    return batches[0], batches[len(batches) // 2], batches[-1]


def _ports_of_plan(path: Path, made: SideCar) -> tuple[GraphPort, GraphPort]:
    """Those of the graph it was built from, if that lies beside it; else those edgeseg exports."""
    for graph in sorted(path.parent.glob("*.onnx")):
        if sha256_file(graph) == made.onnx_sha256:
            model = _network(graph)
            return model.input, model.output
    spec = made.card.input
    size = (None, None) if spec.open_size else (spec.height, spec.width)
    source = GraphPort("image", "float32", (None, spec.channels, *size))
    if made.card.output == "logits":
        return source, GraphPort("labels", "float32", (None, len(made.card.classes), *size))
    return source, GraphPort("labels", "uint8", (None, *size))


def _largest_batch(model: _Model, asked: int | None) -> int:
    """Triton's ``max_batch_size``: 0 where the batch is part of a fixed shape."""
    if model.batch is not None:
        if asked not in (None, model.batch):
            raise UsageError(
                f"{model.path}: it takes batches of {model.batch} only, not up to {asked}",
                hint="edgeseg export --dynamic-batch, then build and export --triton again",
            )
        return 0
    if model.largest is not None and asked is not None and asked > model.largest:
        raise UsageError(
            f"{model.path} was built for batches up to {model.largest}, not {asked}",
            hint=f"edgeseg build --batch 1:{asked}:{asked}",
        )
    return asked or model.largest or DEFAULT_BATCH


def _name_of(card: ModelCard) -> str:
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "-", f"{card.name}-{card.precision}").lstrip("-._") or "model"
    )


def _next_version(folder: Path, config: str) -> int:
    """1, or the one after those of the same model: clients must not notice but by its labels."""
    if not folder.exists():
        return 1
    there = folder / CONFIG
    if not there.exists() or _promise(there.read_text("utf-8")) != _promise(config):
        raise MismatchedArtifact(
            f"{folder} serves another model: back end, ports, classes or preprocessing in its "
            f"{CONFIG} are not those of this network",
            hint="choose another --name, or remove that folder",
        )
    versions = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    return max(versions, default=0) + 1


def _promise(config: str) -> list[str]:
    """The lines that clients rely on; batching and copies may change from version to version."""
    kept = ("backend", "default_model_filename", "input", "output", "parameters")
    return [line for line in config.splitlines() if line.startswith(kept)]


def _config(model: _Model, name: str, largest: int, serving: Serving) -> str:
    """``inference.ModelConfig`` as protobuf text."""
    labels = f" label_filename: {_quoted(LABELS)}" if model.output.dtype == "uint8" else ""
    spec = model.card.input
    classes = model.card.classes
    described = classes.model_dump(mode="json") | {"background": classes.background}
    lines = [
        f"name: {_quoted(name)}",
        f"backend: {_quoted(model.backend)}",
        f"default_model_filename: {_quoted(model.file)}",
        f"max_batch_size: {largest}",
        f"input [ {{ {_port(model.input, largest, model.batch)} }} ]",
        f"output [ {{ {_port(model.output, largest, model.batch)}{labels} }} ]",
        f"instance_group [ {{ kind: {_KINDS[model.backend]} count: {serving.instances} }} ]",
    ]
    if largest:
        # Triton's guide: no preferred sizes, but for the batch an engine is optimised for.
        preferred = model.typical if model.typical and 1 < model.typical <= largest else None
        told = f"preferred_batch_size: [ {preferred} ] " if preferred else ""
        delay = round(serving.queue_delay_ms * 1000)
        lines.append(f"dynamic_batching {{ {told}max_queue_delay_microseconds: {delay} }}")
    # The first request would else wait for allocations and for tuning.
    fixed = () if largest else (model.batch or 1,)
    lines.append(
        f'model_warmup [ {{ name: "zeros" batch_size: 1 inputs {{ key: {_quoted(model.input.name)} '
        f"value {{ data_type: {_TYPES[model.input.dtype]} "
        f"dims: {_dims((*fixed, *spec.shape))} zero_data: true }} }} }} ]"
    )
    for key, text in (
        ("edgeseg.input", spec.model_dump_json()),
        ("edgeseg.classes", json.dumps(described, ensure_ascii=False)),
    ):
        lines.append(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(text)} }} }}"
        )
    return "\n".join(lines) + "\n"


def _port(port: GraphPort, largest: int, batch: int | None) -> str:
    """Without the batch where Triton batches: it adds that dimension itself."""
    shape = port.shape[1:] if largest else (batch, *port.shape[1:])
    sizes = tuple(-1 if size is None else size for size in shape)
    return f"name: {_quoted(port.name)} data_type: {_TYPES[port.dtype]} dims: {_dims(sizes)}"


def _dims(sizes: tuple[int, ...]) -> str:
    return f"[ {', '.join(map(str, sizes))} ]"


def _quoted(text: str) -> str:
    """Quote a string for protobuf's text format: UTF-8 with C escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
