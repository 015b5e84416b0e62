"""Show which preprocessing an import finds for networks whose training is known.

    python bench/imports/finder.py [--work runs/imports]

Takes the trained networks that ``imports.py`` exported into ``--work``, each of which was fed in
another way (``TRAINED`` in ``networks.py``), and imports each with the bundled nuclei as labelled
pictures, nothing stated: once with all training pictures, and once with the grey ones alone, which
cannot tell RGB from BGR. One network is imported a second time with another preprocessing folded
into its first convolution. Writes ``results/imports/finder.md``.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from edgeseg.artifacts.files import write_atomic
from edgeseg.data.folders import bundled_sample, load_image
from edgeseg.importing import ImportConfig, Imported, import_network
from edgeseg.importing.options import IMAGENET

RESULTS = Path(__file__).resolve().parent.parent / "results" / "imports"
PARTS = ("color", "normalise", "resize")
TRAINED = {
    "smp-unet-mobilenetv3": ("rgb", "imagenet", "stretch"),
    "torchvision-lraspp": ("bgr", "unit", "letterbox"),
    "smp-deeplabv3plus-resnet18": ("bgr", "0.5/0.5", "stretch"),
    "smp-unet-mobilenetv3-caffe": ("bgr", "103.939,116.779,123.68/1,1,1", "stretch"),
}
HEADER = f"""# The preprocessing that an import finds

Written by `bench/imports/finder.py`: networks trained with a known preprocessing, imported with
labelled pictures of the bundled nuclei and nothing stated. *Cannot tell* means that combinations
with another value are not worse by more than chance; what is assumed is then rgb, imagenet and
stretch. The last network is the first, with that preprocessing folded into its first convolution.

| network | pictures | combinations | {" | ".join(PARTS)} | mean IoU: best, as trained |
|{"---|" * 7}
"""


def main() -> None:
    """Import each network with both sets of pictures, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/imports"))
    work = parser.parse_args().work
    fold_caffe(work, "smp-unet-mobilenetv3")
    sets = {"all": bundled_sample(), "grey": grey(work / "grey")}
    lines = [row(work, name, title, data) for name in TRAINED for title, data in sets.items()]
    write_atomic(RESULTS / "finder.md", HEADER + "\n".join(lines) + "\n")


def fold_caffe(work: Path, name: str) -> None:
    """Let a network that takes ImageNet's RGB take BGR grey levels less Caffe's means.

    The same function but for the zeros around the picture, which are another colour.
    """
    model = onnx.load(work / name / f"{name}.onnx")
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = {weight.name: weight for weight in model.graph.initializer}
    kernel, bias = (onnx.numpy_helper.to_array(weights[n]) for n in first.input[1:3])
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    caffe = np.array([123.68, 116.779, 103.939]).reshape(3, 1, 1)
    bias = bias + (kernel * (caffe / 255 - mean) / std).sum((1, 2, 3))
    kernel = (kernel / (255 * std))[:, ::-1]
    for weight, value in zip(first.input[1:3], (kernel, bias), strict=True):
        folded = onnx.numpy_helper.from_array(value.astype(np.float32), weight)
        weights[weight].CopyFrom(folded)
    (work / f"{name}-caffe").mkdir(exist_ok=True)
    onnx.save(model, work / f"{name}-caffe" / f"{name}-caffe.onnx")


def grey(root: Path) -> Path:
    """The training pictures whose channels are equal, as a data set."""
    shutil.rmtree(root, ignore_errors=True)
    source = bundled_sample()
    for part in ("images", "instances"):
        (root / "train" / part).mkdir(parents=True)
    shutil.copy(source / "classes.json", root)
    for path in sorted((source / "train" / "images").iterdir()):
        if not np.ptp(load_image(path), axis=2).any():
            for part in ("images", "instances"):
                file = next((source / "train" / part).glob(f"{path.stem}.*"))
                (root / "train" / part / file.name).symlink_to(file)
    return root


def row(work: Path, name: str, title: str, data: Path) -> str:
    """A line of the table."""
    config = ImportConfig(classes="background,nucleus", data=data, split="train")
    run = work / name / f"found-{title}"
    made = import_network(work / name / f"{name}.onnx", run, config, overwrite=True)
    found = made.wrapped.findings
    assert found is not None
    texts = [f"`{name}`", f"{found.pictures} {title}", str(found.tried), *verdicts(name, made)]
    trained = [score for each, score in found.scores.items() if fed(each) == TRAINED[name]]
    best = found.scores[found.best]
    texts.append(f"{best:.3f}, {trained[0]:.3f}" if trained else f"{best:.3f}, not among the best")
    return f"| {' | '.join(texts)} |"


def fed(combination: object) -> tuple[str, ...]:
    """A combination in the words of ``TRAINED``, where it leaves the classes as they are."""
    if getattr(combination, "order", None) is not None:
        return ()
    values = (getattr(combination, part) for part in PARTS)
    return tuple(getattr(value, "name", value) for value in values)


def verdicts(name: str, made: Imported) -> Iterator[str]:
    """For each part what it was trained with, and what the import says."""
    chosen = made.wrapped.preprocessing
    for part, truth, value in zip(PARTS, TRAINED[name], fed(chosen.combination), strict=True):
        verdict = "found" if value == truth else f"found {value}"
        yield f"{truth}: {'cannot tell' if 'cannot tell' in chosen.origins[part] else verdict}"


if __name__ == "__main__":
    main()
