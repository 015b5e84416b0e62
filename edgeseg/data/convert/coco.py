"""Read COCO: ``instances_*.json`` with polygons, run-length codes and crowds.

The format of https://cocodataset.org/#format-data, as COCO publishes it and tools export it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgeseg.artifacts.documents import shown
from edgeseg.data.convert.areas import Area, Polygons, RunLengths, Size, decode_counts
from edgeseg.data.convert.labels import (
    Labels,
    Losses,
    Picture,
    Shape,
    entry,
    points,
    posix,
    read_json,
    split_of,
    stated_size,
)
from edgeseg.errors import DatasetError


def read(root: Path, files: Iterable[Path], losses: Losses) -> Labels:
    """Read the annotation files; classes are those of all files, by category id.

    Raises:
        DatasetError: A file is not as documented.
    """
    names: dict[str, int] = {}
    pictures: list[Picture] = []
    for path in files:
        document = read_json(path)
        categories = {
            entry(each, "id", int, f"{path}: categories"): entry(
                each, "name", str, f"{path}: categories"
            )
            for each in entry(document, "categories", list, path)
        }
        for number, name in categories.items():
            names.setdefault(name, number)
        pictures += _pictures(root, path, document, categories, losses)
    return Labels("coco", tuple(sorted(names, key=lambda name: names[name])), tuple(pictures))


def _pictures(
    root: Path, path: Path, document: dict[str, Any], categories: dict[int, str], losses: Losses
) -> Iterable[Picture]:
    images = {
        entry(each, "id", int, f"{path}: images"): each
        for each in entry(document, "images", list, path)
    }
    found: defaultdict[int, list[Shape]] = defaultdict(list)
    for number, annotation in enumerate(entry(document, "annotations", list, path)):
        of = entry(annotation, "image_id", int, f"{path}: annotation {number}")
        where = f"{path}: annotation {annotation.get('id', number)}"
        if of not in images:
            raise DatasetError(
                f"{where}: belongs to image {of}, which is not among the images of the file",
                hint="export the labels again, with their images",
            )
        label = categories.get(entry(annotation, "category_id", int, where))
        area = _segmentation(
            annotation.get("segmentation"), stated_size(images[of], "height", "width"), where
        )
        if label is None:
            losses.add("shapes_of_unknown_class", where)
        elif area is None:
            losses.add_shape("box" if "bbox" in annotation else "no segmentation", where)
        else:
            crowd = annotation.get("iscrowd") == 1
            losses.add("crowds", where, int(crowd))
            found[of].append(Shape(label, area, where, crowd=crowd))
    # The file is named in the way of a folder: instances_val2017.json.
    by_file = split_of(PurePosixPath(path.relative_to(root).with_suffix("").as_posix()) / "-")
    for number, image in images.items():
        name = posix(entry(image, "file_name", str, f"{path}: image {number}"))
        size = stated_size(image, "height", "width")
        split = by_file or split_of(name)
        yield Picture(str(name), path, split, size, tuple(found[number]))


def _segmentation(segmentation: object, size: Size | None, where: str) -> Area | None:
    """Return the area of a segmentation, None if there is none."""
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        return Polygons(tuple(points(ring, where) for ring in segmentation))
    stated = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not isinstance(segmentation, dict) or size is None or stated != list(size):
        expected = f"{size[1]}×{size[0]}" if size else "a stated width and height"
        raise DatasetError(
            f"{where}: expected a list of polygons, or run lengths for {expected}, "
            f"found {shown(segmentation if stated is None else stated)}"
        )
    counts = segmentation.get("counts")
    try:
        runs = decode_counts(counts) if isinstance(counts, str) else np.asarray(counts, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{where}: expected run lengths, found {shown(counts)}") from error
    return checked(RunLengths(runs, size[0], size[1], by_column=True), where)


def checked(runs: RunLengths, where: str) -> RunLengths:
    """Return run lengths that fill their rectangle; raises DatasetError for others."""
    total = sum(runs.counts.tolist()) if runs.counts.ndim == 1 else -1
    if total != runs.height * runs.width or (runs.counts < 0).any():
        raise DatasetError(
            f"{where}: expected run lengths of {runs.width}×{runs.height} pixels in all, "
            f"found {total}",
            hint="export the labels again",
        )
    return runs
