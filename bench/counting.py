"""Count nuclei by Otsu's threshold and by the network that comes with edgeseg.

    python bench/counting.py [DIR] [OUT.json]     with OUT.png beside it

DIR is a data set of two classes with maps of its objects (default: the bundled sample); its
validation pictures are scored. The network was trained on the training pictures of the 2018 Data
Science Bowl, of which the bundled sample is a part.
"""

import json
import sys
from pathlib import Path

from edgeseg import __version__
from edgeseg.cli.counting import count, otsu
from edgeseg.data.folders import bundled_sample, load_sample, read_split
from edgeseg.metrics import ConfusionMatrix
from edgeseg.runs import BUNDLED


def main() -> None:
    """Print the scores as JSON; with OUT.json write them and the picture."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else bundled_sample()
    split = read_split(root, "val")
    confusion = ConfusionMatrix(2, split.classes.ignore)
    for sample in split:
        image, mask = load_sample(sample, split.classes)
        confusion.update(mask, otsu(image))
    networks = {path.name: path for path in sorted((BUNDLED / "nuclei").glob("*.onnx"))}
    scores, drawn = count(networks, root)
    document = {
        "edgeseg": __version__,
        "data": root.name,
        "pictures": len(split),
        "threshold_mean_iou": round(confusion.mean_iou, 4),
        "objects": {name: score.to_dict() for name, score in scores.items()},
    }
    text = json.dumps(document, indent=2)
    print(text)
    if len(sys.argv) > 2:
        out = Path(sys.argv[2])
        out.write_text(text + "\n")
        out.with_suffix(".png").write_bytes(drawn)


if __name__ == "__main__":
    main()
