"""Wrap a network made elsewhere: fix, decide, append labels, find the preprocessing, prove."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.console import Track, silent
from edgeseg.data.folders import Split, bundled_sample, load_image, read_split
from edgeseg.errors import UsageError
from edgeseg.importing.deciding import decide_head, told_by_range
from edgeseg.importing.finder import Combination, Ranking, combinations, find
from edgeseg.importing.heads import Head, append_head
from edgeseg.importing.inputs import PictureInput, find_picture, size_of, wrap_input
from edgeseg.importing.knowledge import Known, known_of
from edgeseg.importing.options import UNIT, Normalise, class_map, input_spec, read_classes
from edgeseg.importing.outputs import find_output
from edgeseg.importing.preprocessing import STATED, Preprocessing, prior, settle
from edgeseg.importing.proof import OriginalRun, Proof, Runs, open_session, prove
from edgeseg.importing.reading import Original, attempt, maker
from edgeseg.importing.shapes import name_nodes, rename, simplified
from edgeseg.ops.preprocess import preprocess
from edgeseg.options.importing import ImportConfig
from edgeseg.precision.graph import serialize, typed, write_card

IMAGE = "image"
_IR_VERSION = 10  # Newer ones would shut older runtimes out for nothing.
_PROOF_PICTURES = 4


@dataclass(frozen=True)
class Wrapped:
    """A network with a card, and how it was made.

    Attributes:
        model: The graph: ``image`` float32 (1, C, H, W) → ``labels`` uint8 (1, H, W).
        data: Its bytes.
        card: Its card.
        original: The network as it was read.
        config: What the user stated.
        names_origin: Where the names of its classes are from.
        picture: The original's input.
        head: How the original's output becomes labels.
        preprocessing: How pictures become its input.
        findings: What labelled pictures say of that; None without any.
        proof: Comparison with the original.
    """

    model: ModelProto = field(repr=False)
    data: bytes = field(repr=False)
    card: ModelCard
    original: Original = field(repr=False)
    config: ImportConfig
    names_origin: str
    picture: PictureInput
    head: Head
    preprocessing: Preprocessing
    findings: Ranking | None
    proof: Proof


def wrap(
    original: Original,
    config: ImportConfig,
    track: Track = silent,
    *,
    classes: ClassMap | None = None,
    spec: InputSpec | None = None,
    opened: Callable[[Original, PictureInput, str], Runs] = OriginalRun,
) -> Wrapped:
    """Make a network of ours from one made elsewhere.

    Args:
        original: The network.
        config: What the user states.
        track: Progress.
        classes: Classes, in place of those in ``config``.
        spec: The whole input, in place of what ``config`` says of it.
        opened: Opens what the result is compared with: the file in ONNX Runtime by default.

    Raises:
        UsageError: An option does not fit the network, or something needed is not stated.
        CorruptArtifact: The graph contradicts itself.
        MismatchedArtifact: It is no network for semantic segmentation, or cannot be built here.
        InferenceError: The wrapped network differs from the original.
    """
    path, known, picture = original.path, known_of(original), find_picture(original)
    split = read_split(config.data, config.split) if config.data else None
    size = _size(picture, known, config, path)
    model = simplified(wrap_input(original.model, picture, size), path)
    named, names_origin = _names(config, known, split)
    if classes is not None:
        named, names_origin = classes.model_dump(), STATED
    count = len(named["names"]) if named else None
    output = attempt(
        path,
        "reading its outputs",
        lambda: find_output(
            model, path, size, name=config.output, classes=count, inner=original.tensors
        ),
    )
    if named is None:
        raise _nameless(path, output.channels)
    classes = class_map(named, "--classes" if names_origin == STATED else names_origin)
    if config.background is not None:
        classes = classes.with_background(config.background)
    preprocessing, findings = _before(picture, known, config, spec), None
    head = decide_head(output, classes, config, size, path)
    run = opened(original, picture, output.name)
    if head.threshold is not None and output.activation == "none":
        tensors = [preprocess(i, spec or preprocessing.spec(size)) for i in _pictures(split)]
        output = told_by_range(output, [run.raw(t[np.newaxis], output.name) for t in tensors])
        head = decide_head(output, classes, config, size, path)
    if head.threshold is not None and config.background is None and not output.classes:
        # A class without a channel of its own is where no other is, whatever its name.
        classes = classes.with_background(classes.names[head.background])
    append_head(model, head)
    # Not before: outputs are asked of the original by their names, one of which may be this.
    rename(model, model.graph.input[0].name, IMAGE)
    if split is not None and spec is None:
        choices = combinations(picture, preprocessing.combination)
        session = open_session(serialize(model), path)
        findings = find(session, choices, size, classes, split, track)
        preprocessing = settle(preprocessing, findings)
    spec = spec or preprocessing.spec(size)
    card = _card(original, config, classes, spec, head, preprocessing)
    model = _finished(model, card, path)
    data = serialize(model)
    proof = prove(run, original, data, head, spec, _pictures(split))
    return Wrapped(
        model, data, card, original, config, names_origin, picture, head, preprocessing, findings,
        proof,
    )  # fmt: skip


def _before(
    picture: PictureInput, known: Known, config: ImportConfig, spec: InputSpec | None
) -> Preprocessing:
    if spec is None:
        return prior(picture, known, config)
    normalise = Normalise("as on the card", spec.scale, spec.mean, spec.std)
    stated = dict.fromkeys(("color", "normalise", "resize"), STATED)
    return Preprocessing(Combination(spec.color, normalise, spec.resize), stated)


def _size(picture: PictureInput, known: Known, config: ImportConfig, path: Path) -> tuple[int, int]:
    size = size_of(picture, config.size, path)
    if size is None and known.size is not None:
        size = picture.height or known.size[0], picture.width or known.size[1]
    if size is None:
        raise UsageError(
            f"{path} takes pictures of any size, and no file beside it says which it was made for",
            hint=f"edgeseg import {path} --size 512x512",
        )
    # Before anything of that size is made.
    input_spec(size, "rgb", UNIT, "stretch")
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
    original: Original,
    config: ImportConfig,
    classes: ClassMap,
    spec: InputSpec,
    head: Head,
    preprocessing: Preprocessing,
) -> ModelCard:
    from edgeseg import __version__

    options: dict[str, bool | int | float | str] = {
        "made_from": original.path.name,
        "made_by": maker(original),
        "output": head.output.name,
        "preprocessing": "; ".join(f"{k} {v}" for k, v in preprocessing.origins.items()),
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
