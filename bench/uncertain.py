"""Measure whether the frames that ``--keep-uncertain`` prefers are those that a network gets wrong.

    python bench/uncertain.py NETWORK DIR OUT

DIR/images and DIR/masks are the frames of a labelled drive, in order. OUT/NAME.json and OUT/NAME.md
compare the error of a frame, the share of its labelled pixels with a wrong label, with what a
stream can know: the share of pixels that disagrees with both neighbours (which is used), flicker,
and as a control how much the picture itself changes, without any network. With ``--checkpoint``
also the entropy of the scores, which engines do not give.
``--maps FILE.npy`` keeps the network's label maps for the next run.
"""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from harness import circumstances, command_line, words, write_json
from numpy.typing import NDArray

import edgeseg
from edgeseg.artifacts.card import InputSpec
from edgeseg.artifacts.files import write_atomic
from edgeseg.data.folders import load_image, read_split
from edgeseg.data.sample import load_mask
from edgeseg.ops.preprocess import fit_mask, preprocess
from edgeseg.report.tables import Column, Table, render_markdown

TOP = 20
"""Number of frames to choose."""

Frames = NDArray[np.uint8]


def neighbours(frames: Frames) -> NDArray[np.float64]:
    """The lesser share of pixels that differ from the frame before and after, without the ends."""
    shares = [float(np.mean(one != other)) for one, other in itertools.pairwise(frames)]
    return np.minimum(shares[:-1], shares[1:])


def flicker(frames: Frames) -> NDArray[np.float64]:
    """Share of pixels whose label changes and changes back."""
    both = (frames[:-2] == frames[2:]) & (frames[1:-1] != frames[2:])
    return np.asarray(both.mean(axis=(1, 2)), np.float64)


def motion(greys: Frames) -> NDArray[np.float64]:
    """The lesser mean difference of grey levels from the frame before and after."""
    steps = [float(np.mean(cv2.absdiff(one, other))) for one, other in itertools.pairwise(greys)]
    return np.minimum(steps[:-1], steps[1:])


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's, without ties."""
    return float(np.corrcoef(one.argsort().argsort(), other.argsort().argsort())[0, 1])


def label_maps(network: Path, pictures: list[Path], kept: Path | None) -> tuple[Frames, Any]:
    """The network's label maps of the pictures, and its card."""
    with edgeseg.load(network) as engine:
        if kept is not None and kept.exists():
            return np.load(kept), engine.card
        spec = engine.card.input
        tensors = (preprocess(load_image(path), spec)[np.newaxis] for path in pictures)
        maps = np.stack([engine.infer(tensor)[0].copy() for tensor in tensors])
    if kept is not None:
        np.save(kept, maps)
    return maps, engine.card


def entropies(checkpoint: Path, pictures: list[Path]) -> NDArray[np.float64]:
    """Mean entropy of the softmax over a picture's pixels, in nats, without the ends."""
    import torch

    from edgeseg.models.mirror import same_size
    from edgeseg.training.checkpoint import load_checkpoint

    model, card = load_checkpoint(checkpoint)
    network = same_size(model.eval())
    found = []
    with torch.inference_mode():
        for path in pictures:
            tensor = torch.from_numpy(preprocess(load_image(path), card.input))[None]
            logarithms = network(tensor).log_softmax(dim=1)
            found.append(float(-(logarithms.exp() * logarithms).sum(dim=1).mean()))
    return np.array(found[1:-1])


def rows(
    maps: Frames, truth: Frames, greys: Frames, entropy: NDArray[np.float64] | None
) -> list[dict[str, Any]]:
    """What each way to choose finds."""
    labelled = truth != 255
    wrong = ((maps != truth) & labelled).sum(axis=(1, 2)) / labelled.sum(axis=(1, 2))
    errors = wrong[1:-1]
    found = []
    ways = {
        "labels that disagree with both neighbours (used)": neighbours(maps),
        "flicker of labels": flicker(maps),
        "change of the picture (control)": motion(greys),
    }
    if entropy is not None:
        ways["entropy of the scores"] = entropy
    for name, scores in ways.items():
        chosen = np.argsort(-scores)[:TOP]
        found.append(
            {
                "chosen by": name,
                "rank_correlation": round(rank_correlation(scores, errors), 3),
                "error_chosen": round(float(errors[chosen].mean()), 4),
                "error_others": round(float(np.delete(errors, chosen).mean()), 4),
            }
        )
    return found


def main() -> None:
    """Measure, and write JSON and Markdown."""
    parser = command_line(__doc__)
    for name in ("network", "root", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--maps", type=Path, help="file of the network's label maps")
    parser.add_argument("--checkpoint", type=Path, help="the network's checkpoint, for its scores")
    parser.add_argument("--name", default="uncertain", help="of the files")
    given = parser.parse_args()
    samples = list(read_split(given.root, "val"))
    pictures = [sample.image for sample in samples]
    maps, card = label_maps(given.network, pictures, given.maps)
    spec: InputSpec = card.input
    truth = np.stack([fit_mask(load_mask(s).astype(np.uint8), spec) for s in samples])
    greys = [cv2.cvtColor(load_image(path), cv2.COLOR_BGR2GRAY) for path in pictures]
    entropy = None if given.checkpoint is None else entropies(given.checkpoint, pictures)
    document = {
        "schema": "edgeseg.uncertain/1",
        **circumstances(),
        "network": card.name,
        "input": f"{spec.width}x{spec.height}",
        "frames": len(samples),
        "rows": rows(maps, truth, np.stack(greys).astype(np.uint8), entropy),
    }
    write_json(given.out / f"{given.name}.json", document)
    columns = (
        *words("Chosen by"),
        Column("Rank correlation with the error"),
        Column(f"Error of the {TOP} chosen"),
        Column("Error of the others"),
    )
    table = Table(columns, tuple(tuple(map(str, row.values())) for row in document["rows"]))
    text = (
        "# Uncertain frames\n\n"
        f"{card.name} at {document['input']}, {len(samples)} labelled frames of a drive. The error "
        "of a frame is the share of its\nlabelled pixels with a wrong label.\n\n"
    )
    write_atomic(given.out / f"{given.name}.md", text + render_markdown(table) + "\n")


if __name__ == "__main__":
    main()
