"""Export checkpoints to ONNX, with argmax and folded BatchNorm, and compare with PyTorch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import sha256_bytes, sha256_file, write_atomic
from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.engines.onnxruntime import OnnxRuntimeEngine
from edgeseg.errors import InferenceError, NonFiniteOutput, UsageError, needed
from edgeseg.export.open_size import count_from_the_end, other_sizes, with_open_size
from edgeseg.models.mirror import padded_logits, same_size_logits
from edgeseg.ops.preprocess import preprocess
from edgeseg.training.checkpoint import load_checkpoint

with needed("exporting needs", "train"):
    import onnx
    import onnxscript  # noqa: F401 - torch.onnx needs it and says so only when it runs.
    from onnx import ModelProto, numpy_helper

from edgeseg.artifacts.workshop import install, workshop
from edgeseg.precision.deconvolution import split_channels
from edgeseg.precision.graph import (
    consumers,
    derived_card,
    precision_report,
    serialize,
    sort_nodes,
    tensors,
    typed,
    unused_name,
    write_card,
)

OPSET = 18
"""Read by TensorRT 8.6 … 11, TensorRT-RTX and every ONNX Runtime since 2023."""

NEAR_TIE = 1e-3
"""Scores closer than this may swap ranks between two float32 implementations."""

_IR_VERSION = 8  # The oldest with opset 18; newer ones shut out older runtimes for nothing.
_SEED = 0


@dataclass(frozen=True)
class Parity:
    """Comparison of an exported network with PyTorch.

    ``mismatched`` pixels have another label; all of them are ``near_ties``, pixels whose two
    best scores lie closer than 0.001, or the export fails.
    """

    images: int
    pixels: int
    mismatched: int
    near_ties: int

    def __add__(self, other: Parity) -> Parity:
        return Parity(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class ExportResult:
    """Result of an export: the file, its card, and the comparison with PyTorch."""

    path: Path
    card: ModelCard
    parity: Parity


def export_onnx(
    checkpoint: Path, onnx_path: Path, *, dynamic_batch: bool = False, dynamic_size: bool = False
) -> ExportResult:
    """Write a checkpoint as ONNX, with its side-car.

    Input ``image`` float32 (N, C, height, width) as :mod:`edgeseg.ops.preprocess` makes it,
    output ``labels`` uint8 (N, height, width). The same checkpoint gives the same bytes.

    Args:
        checkpoint: ``model.safetensors``.
        onnx_path: The file to write.
        dynamic_batch: Make N dynamic; otherwise it is 1.
        dynamic_size: Make height and width dynamic, for multiples of the network's stride as given
            by ``open_size`` in the card. Compared with PyTorch at several sizes.

    Raises:
        UsageError: No such checkpoint, a suffix other than ``.onnx``, or a network whose size
            cannot vary.
        ArtifactError: The checkpoint is damaged or no safetensors.
        InferenceError: The network disagrees with PyTorch; nothing is written.
    """
    model, card = load_checkpoint(checkpoint)
    card = derived_card(card, sha256_file(checkpoint), "fp32")
    return export_module(
        model, card, onnx_path, dynamic_batch=dynamic_batch, dynamic_size=dynamic_size
    )


def export_module(
    model: nn.Module,
    card: ModelCard,
    onnx_path: Path,
    *,
    dynamic_batch: bool = False,
    dynamic_size: bool = False,
    images: Sequence[NDArray[np.uint8]] = (),
) -> ExportResult:
    """Export a network that is in memory, like :func:`export_onnx`, with the given card.

    It is compared with PyTorch on ``images``, uint8 (H, W, 3) BGR, by default two of seeded noise.
    """
    onnx_path = Path(onnx_path)
    if onnx_path.suffix != ".onnx":
        raise UsageError(f"{onnx_path}: expected a name that ends with .onnx")
    model = model.cpu().eval()
    if dynamic_size:
        card = with_open_size(model, card)
    graph = trace(model, card, dynamic_batch=dynamic_batch)
    data = serialize(graph)
    made = SideCar(
        artifact_sha256=sha256_bytes(data),
        artifact_bytes=len(data),
        card=card,
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
        precision=precision_report(graph),
    )
    with workshop(onnx_path.parent) as shop:
        path = shop / onnx_path.name
        write_atomic(path, data)
        made.save(sidecar_path(path))
        parity = check_parity(model, path, _inputs(card, images, dynamic_batch))
        for inputs in other_sizes(card):
            parity += check_parity(model, path, inputs)
        install(path, onnx_path.parent)
    return ExportResult(onnx_path, card, parity)


def trace(model: nn.Module, card: ModelCard, *, dynamic_batch: bool = False) -> ModelProto:
    """Trace the graph from float32 ``image`` to uint8 ``labels``, with the card embedded.

    Shapes are fixed but for the batch, and for the size where the card has an ``open_size``.
    BatchNorm is folded into the convolution before it, deconvolutions that mix no channels are
    depthwise, and nodes are named by the module that they come from (``down.0.3/Conv``).
    """
    example = torch.zeros(1, *card.input.shape)
    with quiet():
        program = torch.onnx.export(
            _Labels(model, of_any_size=card.input.open_size is not None).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["labels"],
        )
    assert program is not None  # That is so for dynamo=True.
    graph: ModelProto = program.model_proto
    graph.ir_version = _IR_VERSION
    _scale_resizes(graph)
    if card.input.open_size is not None:
        count_from_the_end(graph, tensors(typed(graph, "the exported network")))
    _remove_unread(graph)
    split_channels(graph)
    _name_nodes(graph)
    _strip(graph)
    for value in (*graph.graph.input, *graph.graph.output):
        if dynamic_batch:
            value.type.tensor_type.shape.dim[0].dim_param = "N"
        if card.input.open_size:
            for dim, name in zip(value.type.tensor_type.shape.dim[-2:], "HW", strict=True):
                dim.dim_param = name
    write_card(graph, card)
    graph = typed(graph, "the exported network")
    onnx.checker.check_model(graph, full_check=True)
    return graph


def check_parity(model: nn.Module, path: Path, inputs: NDArray[np.float32]) -> Parity:
    """Compare the labels of PyTorch and ONNX Runtime on the same tensors.

    Args:
        inputs: float32 (N, C, height, width).

    Raises:
        InferenceError: A label differs where PyTorch's two best scores are not a near tie.
        NonFiniteOutput: PyTorch itself gives NaN or infinity.
    """
    mismatched = near_ties = 0
    with OnnxRuntimeEngine(path) as engine:
        step = engine.capabilities.batch or len(inputs)
        for start in range(0, len(inputs), step):
            batch = inputs[start : start + step]
            labels, margin = _torch_labels(model, batch)
            differs = engine.infer(batch) != labels
            mismatched += int(differs.sum())
            near_ties += int((differs & (margin < NEAR_TIE)).sum())
        pixels = len(inputs) * inputs.shape[-2] * inputs.shape[-1]
    if mismatched > near_ties:
        raise InferenceError(
            f"the exported network differs from PyTorch in {mismatched - near_ties} of {pixels} "
            f"pixels that are not near ties (besides {near_ties} that are); nothing was written",
            hint="please report this with the architecture and its options",
        )
    return Parity(len(inputs), pixels, mismatched, near_ties)


class _Labels(nn.Module):
    """Logits → the class of the highest one."""

    def __init__(self, model: nn.Module, *, of_any_size: bool) -> None:
        super().__init__()
        self.model = model
        self.logits = padded_logits if of_any_size else same_size_logits

    def forward(self, image: Tensor) -> Tensor:
        return self.logits(self.model, image).argmax(dim=1).to(torch.uint8)


def _torch_labels(
    model: nn.Module, batch: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return labels (N, H, W) and the margin between the two best scores."""
    with torch.inference_mode():
        logits = same_size_logits(model, torch.from_numpy(batch))
        if not bool(torch.isfinite(logits).all()):
            raise NonFiniteOutput("the network gives NaN or infinity in PyTorch already")
        best, index = torch.topk(logits, 2, dim=1)
    return index[:, 0].to(torch.uint8).numpy(), (best[:, 0] - best[:, 1]).numpy()


def _inputs(
    card: ModelCard, images: Sequence[NDArray[np.uint8]], dynamic_batch: bool
) -> NDArray[np.float32]:
    if not images:
        random = np.random.default_rng(_SEED)
        size = (2, card.input.height, card.input.width, 3)
        images = list(random.integers(0, 256, size, np.uint8))
    # Two of them at least, or a batch that is fixed to 1 somewhere would go unseen.
    images = [images[0], *images] if dynamic_batch and len(images) == 1 else images
    return np.stack([preprocess(image, card.input) for image in images])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's output and warnings; stdout is reserved for results."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _scale_resizes(model: ModelProto) -> None:
    """Replace the size of each Resize by factors, as a size would also fix the batch."""
    known = tensors(typed(model, "the exported network"))
    for place, node in enumerate(n for n in model.graph.node if n.op_type == "Resize"):
        before, after = known[node.input[0]].shape, known[node.output[0]].shape
        factors = [_factor(a or 1, b or 1) for a, b in zip(before, after, strict=True)]
        name = f"resize_{place}_factors"
        model.graph.initializer.append(numpy_helper.from_array(np.array(factors, np.float32), name))
        del node.input[1:]
        node.input.extend(["", name])
        kept = [a for a in node.attribute if a.name != "keep_aspect_ratio_policy"]
        del node.attribute[:]
        node.attribute.extend(kept)


def _factor(before: int, after: int) -> np.float32:
    """The factor that enlarges ``before`` to ``after``, which runtimes round down."""
    factor = np.float32(after / before)
    return factor if float(factor) * before >= after else np.nextafter(factor, np.float32(np.inf))


def _remove_unread(model: ModelProto) -> None:
    """Remove unused weights and sort the nodes topologically."""
    used = consumers(model)
    left = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
    sort_nodes(model)


def _name_nodes(model: ModelProto) -> None:
    """Name nodes and activations by module and operator, not by the tracer's counters."""
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    taken: set[str] = set()
    renamed = {w.name: w.name.removeprefix("model.") for w in model.graph.initializer}
    for weight in model.graph.initializer:
        weight.name = renamed[weight.name]
    # Equal weights of two modules are one for the exporter, and name neither.
    readers = consumers(model)
    for node in model.graph.node:
        own = len(node.input) > 1 and len(readers[node.input[1]]) == 1
        base = f"{_module(node, node.input[1] if own else '')}{node.op_type}"
        node.name = name = unused_name(base, taken)
        for place, output in enumerate(node.output):
            if output and output not in fixed:
                renamed[output] = name if place == 0 else f"{name}:{place}"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, old in enumerate(names):
                names[place] = renamed.get(old, old)
    del model.graph.value_info[:]


def _module(node: onnx.NodeProto, weight: str) -> str:
    """``down.0.3/`` of a node of the module ``model.down.0.3``, nothing at the top.

    By its weight where there is one: a convolution that BatchNorm was folded into counts for
    the exporter as the latter's.
    """
    owner, _, kind = weight.rpartition(".")
    if kind == "weight":
        return f"{owner.removeprefix('model.')}/"
    scopes = {p.key: p.value for p in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
    modules = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
    # The last scope is the operator itself, the first the wrapper.
    inner = modules[-2].removeprefix("model").lstrip(".") if len(modules) > 1 else ""
    return f"{inner}/" if inner else ""


def _strip(model: ModelProto) -> None:
    """Remove metadata about the machine and source files, such as stack traces and paths."""
    graph = model.graph
    graph.name = "edgeseg"
    model.doc_string = graph.doc_string = ""
    del model.metadata_props[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
