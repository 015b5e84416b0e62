"""Model cards of networks that exist in tests only."""

from collections.abc import Iterable, Mapping
from typing import Any

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard, Precision


def model_card(
    names: Iterable[str],
    height: int,
    width: int,
    *,
    name: str = "t",
    arch: str = "unet-lite",
    options: Mapping[str, Any] | None = None,
    precision: Precision = "fp32",
    **spec: Any,
) -> ModelCard:
    """The card of a network of classes ``names``; ``spec`` is further fields of its input."""
    return ModelCard(
        name=name,
        arch=arch,
        options=dict(options or {}),
        classes=ClassMap(names=tuple(names)),
        input=InputSpec(height=height, width=width, **spec),
        precision=precision,
    )
