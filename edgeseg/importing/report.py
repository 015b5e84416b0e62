"""Tell what an import found and decided."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeseg.artifacts.card import ClassMap
from edgeseg.artifacts.documents import plural
from edgeseg.importing.deciding import head_text
from edgeseg.importing.preprocessing import trials, tried_lines
from edgeseg.importing.proof import Proof
from edgeseg.importing.reading import Original, maker
from edgeseg.importing.wrapping import Wrapped


def lines_of(wrapped: Wrapped) -> tuple[tuple[str, str], ...]:
    """What was found and decided, as pairs of a title and a text."""
    classes, spec, passed = wrapped.card.classes, wrapped.card.input, wrapped.head.output.passed
    return (
        ("network", _about(wrapped.original)),
        ("input", str(wrapped.picture)),
        ("output", f"{wrapped.head.output}{_left_out(passed)}"),
        ("labels", head_text(wrapped.head, classes, wrapped.config)),
        ("classes", f"{_listed(classes)} ({wrapped.names_origin})"),
        ("pictures", f"{spec.width}x{spec.height}, {wrapped.preprocessing}"),
        *tried_lines(wrapped.preprocessing, wrapped.findings, classes),
        ("proof", _proof_text(wrapped.proof)),
    )


def document_of(wrapped: Wrapped, path: Path) -> dict[str, Any]:
    """What was found and decided, as JSON types."""
    head, card = wrapped.head, wrapped.card
    output, pre = head.output, wrapped.preprocessing.combination
    return {
        "network": str(path),
        "bytes": len(wrapped.data),
        "original": str(wrapped.original.path),
        "input": asdict(wrapped.picture),
        "output": {
            "name": output.name,
            "kind": output.kind,
            "activation": output.activation,
            "channels": output.channels,
            "width": output.size[1],
            "height": output.size[0],
            "left_out": list(output.passed),
        },
        "enlarge": head.enlarge if head.resized else None,
        "threshold": card.options.get("threshold"),
        "classes": list(card.classes.names),
        "width": card.input.width,
        "height": card.input.height,
        "preprocessing": {
            "color": pre.color,
            "normalise": pre.normalise.name,
            "resize": pre.resize,
            "origins": wrapped.preprocessing.origins,
        },
        "tried": trials(wrapped.findings) if wrapped.findings else None,
        "proof": asdict(wrapped.proof),
    }


def _about(original: Original) -> str:
    opset = max((o.version for o in original.model.opset_import if o.domain == ""), default=0)
    half = ", float16 turned into float32" if original.halved else ""
    return f"{original.path}, by {maker(original)}, opset {opset}{half}"


def _left_out(passed: tuple[str, ...]) -> str:
    return f"; left out: {', '.join(passed)} (--output takes another)" if passed else ""


def _listed(classes: ClassMap) -> str:
    shown = ", ".join(classes.names[:6])
    return f"{len(classes)}: {shown}{', …' if len(classes) > 6 else ''}"


def _proof_text(proof: Proof) -> str:
    same = proof.pixels - proof.mismatched
    near = f"; the other {proof.mismatched} are near ties" if proof.mismatched else ""
    return (
        f"{same} of {proof.pixels} pixels of {plural(proof.images, 'picture')} equal those of the "
        f"original{near}"
    )
