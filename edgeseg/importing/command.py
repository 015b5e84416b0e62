"""The steps of an import: read, fix, decide, wrap, prove, write."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime
from onnx import ModelProto

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.artifacts.files import refuse_to_replace, sha256_bytes, write_atomic
from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.artifacts.workshop import install, workshop
from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, bundled_sample, load_image, read_split
from edgeseg.errors import UsageError
from edgeseg.importing.deciding import decide_head, head_text
from edgeseg.importing.finder import Findings, combinations, find
from edgeseg.importing.heads import Head, append_head
from edgeseg.importing.inputs import Picture, find_picture, size_of, wrap_input
from edgeseg.importing.knowledge import Known, known_of
from edgeseg.importing.options import class_map, read_classes
from edgeseg.importing.outputs import find_output
from edgeseg.importing.preprocessing import (
    STATED,
    Preprocessing,
    prior,
    settle,
    trials,
    tried_lines,
)
from edgeseg.importing.proof import OriginalRun, Proof, open_session, prove
from edgeseg.importing.reading import Original, read
from edgeseg.importing.shapes import name_nodes, simplified
from edgeseg.options.importing import ImportConfig
from edgeseg.precision.graph import precision_report, serialize, typed, write_card
from edgeseg.runs import NETWORK, RUNS, prepare_run

_IR_VERSION = 10  # Newer ones would shut older runtimes out for nothing.
_PROOF_PICTURES = 4


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        path: ``RUN/model.onnx``.
        card: Its card.
        original: The network as it was read.
        picture: The original's input.
        head: How the original's output becomes labels.
        preprocessing: How pictures become its input.
        findings: What labelled pictures say of it; None without any.
        proof: Comparison with the original.
        lines: What was found and decided, as pairs of a title and a text.
    """

    path: Path
    card: ModelCard
    original: Original
    picture: Picture
    head: Head
    preprocessing: Preprocessing
    findings: Findings | None
    proof: Proof
    lines: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what was found and decided as JSON types."""
        output, pre = self.head.output, self.preprocessing.combination
        return {
            "network": str(self.path),
            "bytes": self.path.stat().st_size,
            "original": str(self.original.path),
            "input": asdict(self.picture),
            "output": {
                "name": output.name,
                "kind": output.kind,
                "activation": output.activation,
                "channels": output.channels,
                "width": output.size[1],
                "height": output.size[0],
                "left_out": list(output.passed),
            },
            "enlarge": self.head.enlarge if self.head.resized else None,
            "threshold": self.card.options.get("threshold"),
            "classes": list(self.card.classes.names),
            "width": self.card.input.width,
            "height": self.card.input.height,
            "preprocessing": {
                "color": pre.color,
                "normalise": pre.normalise.name,
                "resize": pre.resize,
                "origins": self.preprocessing.origins,
            },
            "tried": trials(self.findings) if self.findings else None,
            "proof": asdict(self.proof),
        }


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
    path, config = Path(path), config or ImportConfig()
    run = run or RUNS / path.stem
    target = run / NETWORK
    _refuse(path, run, target, overwrite=overwrite)
    original = read(path)
    known = known_of(original)
    picture = find_picture(original)
    split = read_split(config.data, config.split) if config.data else None
    size = _size(picture, known, config, path)
    model = simplified(wrap_input(original.model, picture, size), path)
    named, names_origin = _names(config, known, split)
    output = find_output(
        model, path, name=config.output, classes=len(named["names"]) if named else None
    )
    if named is None:
        raise _nameless(path, output.channels)
    classes = class_map(named, names_origin)
    if config.background is not None:
        classes = classes.with_background(config.background)
    head = decide_head(output, classes, config, size, path)
    if head.threshold is not None and config.background is None:
        # A class without a channel of its own is where no other is, whatever its name.
        classes = classes.with_background(classes.names[head.background])
    append_head(model, head)
    preprocessing, findings = prior(picture, known, config), None
    if split is not None:
        choices = combinations(picture, preprocessing.combination)
        session = open_session(serialize(model), path)
        findings = find(session, choices, size, classes, split, track)
        preprocessing = settle(preprocessing, findings)
    spec = preprocessing.spec(size)
    card = _card(original, config, classes, spec, head)
    model = _finished(model, card, path)
    data = serialize(model)
    proof = prove(OriginalRun(original, picture), data, head, spec, _pictures(split))
    lines = (
        ("network", _about(original)),
        ("input", str(picture)),
        ("output", f"{output}{_left_out(output.passed)}"),
        ("labels", head_text(head, classes, config)),
        ("classes", f"{_listed(classes)} ({names_origin})"),
        ("pictures", f"{size[1]}x{size[0]}, {preprocessing}"),
        *tried_lines(preprocessing, findings, classes),
        ("proof", _proof_text(proof)),
    )
    with prepare_run(run, "imported", overwrite=overwrite):
        _write(data, model, card, target)
    return Imported(target, card, original, picture, head, preprocessing, findings, proof, lines)


def _refuse(path: Path, run: Path, target: Path, *, overwrite: bool) -> None:
    refuse_to_replace(target, sidecar_path(target), overwrite=overwrite, inputs=[path])
    if path.exists() and path.resolve().parent == run.resolve():
        raise UsageError(
            f"{path} lies in the run folder that would be written, {run}",
            hint="choose another folder with --run",
        )


def _size(picture: Picture, known: Known, config: ImportConfig, path: Path) -> tuple[int, int]:
    size = size_of(picture, config.size, path)
    if size is None and known.size is not None:
        size = picture.height or known.size[0], picture.width or known.size[1]
    if size is None:
        raise UsageError(
            f"{path} takes pictures of any size, and no file beside it says which it was made for",
            hint=f"edgeseg import {path} --size 512x512",
        )
    return size


def _names(
    config: ImportConfig, known: Known, split: Split | None
) -> tuple[dict[str, Any] | None, str]:
    """Fields of the classes and where they are from; None if nothing names them."""
    if config.classes is not None:
        return read_classes(config.classes), STATED
    if known.names is not None:
        return {"names": known.names}, known.origins["names"]
    if split is not None and split.declared:
        return split.classes.model_dump(), f"from {split.root / 'classes.json'}"
    return None, ""


def _nameless(path: Path, count: int) -> UsageError:
    many = f"scores of {count} classes" if count > 1 else "scores of a class" if count else "labels"
    return UsageError(
        f"{path} gives {many}, and no file beside it names the classes",
        hint=f"edgeseg import {path} --classes background,road,… or --classes classes.json, in "
        "the order of the network",
    )


def _card(
    original: Original, config: ImportConfig, classes: ClassMap, spec: InputSpec, head: Head
) -> ModelCard:
    from edgeseg import __version__

    options: dict[str, bool | int | float | str] = {
        "made_from": original.path.name,
        "made_by": _maker(original),
        "output": head.output.name,
    }
    if head.resized:
        options["enlarge"] = head.enlarge
    if head.threshold is not None:
        options["threshold"] = config.threshold or 0.5
    return ModelCard(
        name=(config.name or original.path.stem)[:200],
        arch="imported",
        options=options,
        classes=classes,
        input=spec,
        parent_sha256=original.sha256,
        edgeseg_version=__version__,
    )


def _maker(original: Original) -> str:
    model = original.model
    return f"{model.producer_name or 'unknown'} {model.producer_version}".strip()[:100]


def _finished(model: ModelProto, card: ModelCard, path: Path) -> ModelProto:
    """Embed the card, and leave out what names the machine that exported the network."""
    model.doc_string = model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    for part in (*model.graph.node, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]
    model.graph.name = "edgeseg"
    model.ir_version = min(max(model.ir_version, 8), _IR_VERSION)
    name_nodes(model)
    write_card(model, card)
    del model.graph.value_info[:]
    return typed(model, str(path))


def _pictures(split: Split | None) -> list[Any]:
    """Pictures for the proof: the user's, or the bundled ones."""
    shown = split or read_split(bundled_sample(), "val")
    return [load_image(sample.image) for sample in shown.samples[:_PROOF_PICTURES]]


def _write(data: bytes, model: ModelProto, card: ModelCard, target: Path) -> None:
    made = SideCar(
        artifact_sha256=sha256_bytes(data),
        artifact_bytes=len(data),
        card=card,
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
        precision=precision_report(model),
    )
    with workshop(target.parent) as shop:
        path = shop / target.name
        write_atomic(path, data)
        made.save(sidecar_path(path))
        install(path, target.parent)


def _about(original: Original) -> str:
    opset = max((o.version for o in original.model.opset_import if o.domain == ""), default=0)
    half = ", float16 turned into float32" if original.halved else ""
    return f"{original.path}, by {_maker(original)}, opset {opset}{half}"


def _left_out(passed: tuple[str, ...]) -> str:
    return f"; left out: {', '.join(passed)} (--output takes another)" if passed else ""


def _listed(classes: ClassMap) -> str:
    shown = ", ".join(classes.names[:6])
    return f"{len(classes)}: {shown}{', …' if len(classes) > 6 else ''}"


def _proof_text(proof: Proof) -> str:
    same = proof.pixels - proof.mismatched
    near = f"; the other {proof.mismatched} are near ties" if proof.mismatched else ""
    return (
        f"{same} of {proof.pixels} pixels of {proof.images} pictures equal those of the "
        f"original{near}"
    )
