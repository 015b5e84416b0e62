"""Export any segmentation network of PyTorch, whatever its outputs look like.

The module is traced to ONNX and then goes the way of ``edgeseg import``; the result is compared
with PyTorch itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.artifacts.files import refuse_to_replace
from edgeseg.artifacts.partials import alone
from edgeseg.artifacts.sidecar import sidecar_path
from edgeseg.artifacts.workshop import workshop
from edgeseg.errors import InferenceError, UsageError
from edgeseg.export.network import OPSET, quiet
from edgeseg.importing import ImportConfig, Imported
from edgeseg.importing.command import write_wrapped
from edgeseg.importing.options import class_map
from edgeseg.importing.reading import read
from edgeseg.importing.wrapping import wrap

_FIELDS = (
    *("classes", "size", "color", "normalise", "resize", "output", "enlarge", "threshold"),
    *("background", "data", "split", "name"),
)


def export_module(
    module: nn.Module,
    card_or_fields: ModelCard | Mapping[str, Any],
    path: str | Path,
    *,
    overwrite: bool = False,
) -> Imported:
    """Write a network of PyTorch as ONNX with a card, for every command of edgeseg.

    Args:
        module: Takes float (1, C, H, W) and gives scores (1, K, h, w) or labels, alone or in a
            tuple, a list or a dictionary of outputs. It is left as it is, on its device.
        card_or_fields: The card, or fields as the options of ``edgeseg import``: at least
            ``classes`` (names) and ``size`` (height, width); also ``color``, ``normalise``,
            ``resize``, ``output``, ``enlarge``, ``threshold``, ``background``, ``data``, ``name``.
        path: The file to write, e.g. ``runs/mine/model.onnx``.
        overwrite: Replace an existing file.

    Raises:
        UsageError: A field is missing or unknown, or the file exists.
        MismatchedArtifact: It is not a network for semantic segmentation.
        InferenceError: PyTorch cannot trace it, or the result differs from PyTorch.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: expected a name that ends with .onnx")
    refuse_to_replace(path, sidecar_path(path), overwrite=overwrite)
    stated = _stated(card_or_fields, type(module).__name__)
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    training = module.training
    traced = _Flat(module.cpu().eval())
    try:
        with alone(path, doing="writes"), workshop(path.parent) as shop:
            names = _trace(traced, stated, shop / f"{path.stem}.traced.onnx")
            original = read(shop / f"{path.stem}.traced.onnx")
            # The module shows its outputs alone.
            original = replace(original, tensors=frozenset())
            wrapped = wrap(
                original,
                stated.config,
                classes=stated.classes,
                spec=stated.spec,
                opened=lambda *_: _TorchRun(traced, names),
            )
            write_wrapped(wrapped, path)
    finally:
        module.to(device).train(training)
    return Imported(path, wrapped)


@dataclass(frozen=True)
class _Stated:
    """What the caller states: options, classes, and the input where there is a card."""

    config: ImportConfig
    classes: ClassMap
    channels: int
    spec: InputSpec | None = None


def _stated(card: ModelCard | Mapping[str, Any], name: str) -> _Stated:
    if isinstance(card, ModelCard):
        spec = card.input
        config = ImportConfig(name=card.name, size=(spec.height, spec.width))
        return _Stated(config, card.classes, spec.channels, spec)
    unknown = sorted(set(card) - set(_FIELDS))
    missing = [key for key in ("classes", "size") if key not in card]
    if unknown or missing:
        found = f"unknown field {unknown[0]!r}" if unknown else f"no field {missing[0]!r}"
        raise UsageError(
            f"export_module: {found}; expected classes and size, and perhaps others of "
            f"{', '.join(_FIELDS)}",
            hint='export_module(module, {"classes": ["background", "road"], "size": (256, 512)}, '
            '"runs/mine/model.onnx")',
        )
    classes = class_map({"names": list(card["classes"])}, "export_module")
    options = {key: value for key, value in card.items() if key != "classes"}
    config = ImportConfig(**{"name": name, **options})
    return _Stated(config, classes, 1 if config.color == "gray" else 3)


class _Flat(nn.Module):
    """The outputs of a module as a tuple, with a name for each."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def named(self, image: Tensor) -> dict[str, Tensor]:
        """Outputs by name."""
        output = self.module(image)
        if isinstance(output, Tensor):
            return {"scores": output}
        pairs = output.items() if isinstance(output, Mapping) else enumerate(output)
        found = {
            key if isinstance(key, str) else f"output_{key}": value
            for key, value in pairs
            if isinstance(value, Tensor)
        }
        if not found:
            raise UsageError(
                f"{type(self.module).__name__} gives {type(output).__name__}, expected tensors",
                hint="wrap it in a module whose forward returns its scores",
            )
        return found

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(image).values())


def _trace(module: _Flat, stated: _Stated, path: Path) -> list[str]:
    """Write the module as ONNX, and return the names of its outputs."""
    height, width = stated.config.size or (0, 0)
    example = torch.zeros(1, stated.channels, height, width)
    with torch.inference_mode():
        names = list(module.named(example))
    try:
        with quiet():
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=True,
                verbose=False,
                external_data=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=names,
            )
    except Exception as error:  # torch.export and what it calls raise of everything.
        reason = " ".join(str(error).split())[:300]
        raise InferenceError(
            f"PyTorch cannot export {type(module.module).__name__} to ONNX ({reason})",
            hint="torch.onnx.export(module, …, dynamo=True, report=True) says which line it is",
        ) from error
    return names


class _TorchRun:
    """The module in PyTorch."""

    def __init__(self, module: _Flat, names: list[str]) -> None:
        self._module, self._names = module, names

    def raw(self, tensor: NDArray[np.float32], name: str) -> NDArray[Any]:
        """The output ``name`` of one picture for a tensor (1, C, H, W)."""
        with torch.inference_mode():
            outputs = self._module(torch.from_numpy(tensor))
        found: NDArray[Any] = outputs[self._names.index(name)].numpy()
        return found
