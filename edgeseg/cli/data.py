"""The ``data`` commands: convert labels, and check labelled pictures before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.flattening import flat
from edgeseg.cli.options import Json, MaxPixels, Overwrite, allow_pixels
from edgeseg.cli.output import finish, show
from edgeseg.console import progress_bar
from edgeseg.errors import DatasetError
from edgeseg.options.base import Option
from edgeseg.options.converting import ConvertConfig

app = typer.Typer(help="Convert and check labelled pictures.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Convert and check labelled pictures."""


@app.command()
@flat
def check(
    data: Annotated[
        Path, typer.Argument(help="Data set: folders, PASCAL VOC or Cityscapes; see README.")
    ],
    sheet: Annotated[
        Path | None, Option("Write a contact sheet of labelled pictures to this .png file.")
    ] = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """Find faults in a data set; exits with 3 if there are any."""
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV

    from edgeseg.artifacts.figures import require_png
    from edgeseg.artifacts.files import refuse_to_replace
    from edgeseg.data.check import check as look_over
    from edgeseg.data.findings import render
    from edgeseg.data.sheet import save_sheet

    if sheet:
        require_png(sheet, "a contact sheet")
        refuse_to_replace(sheet, overwrite=overwrite, inputs=[data])
    findings = look_over(data, track=progress_bar)
    if sheet:
        save_sheet(sheet, findings.samples, findings.classes)
    if as_json:
        finish(as_json, {**findings.to_dict(), "sheet": str(sheet) if sheet else None})
    else:
        show(render(findings))
        if sheet:
            show(f"\nsheet: {sheet}\n")
    if findings.faults:
        raise typer.Exit(DatasetError.exit_code)


@app.command()
@flat
def convert(
    source: Annotated[Path, typer.Argument(help="File or folder of labels of another tool.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the data set into.")],
    *,
    config: ConvertConfig,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
    as_json: Json = False,
) -> None:
    """Convert labels of COCO, labelme, CVAT, YOLO or colour-coded masks into a data set.

    Everything that is lost is counted and printed; pictures are copied.
    """
    allow_pixels(max_pixels)  # before the imports, which bring OpenCV

    from edgeseg.data.convert import convert as convert_labels

    made = convert_labels(source, out, config, overwrite=overwrite, track=progress_bar)
    finish(as_json, made.to_dict() if as_json else dict(made.lines))
