"""The command line: options in, one call of the library, one result out.

Every command prints what people read on stderr and its result on stdout: a line or a table,
or with ``--json`` one JSON document. Errors end with the exit code of their class
(:mod:`edgeseg.errors`). Each command imports what it needs when it runs, so that
``edgeseg --help`` stays instant and ``edgeseg stream`` never touches torch.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from edgeseg.cli import (
    benching,
    building,
    data,
    inspecting,
    learning,
    measuring,
    running,
    streaming,
)
from edgeseg.cli.completing import VALUES, offering
from edgeseg.console import log_to_stderr
from edgeseg.errors import EdgesegError, RuntimeMissing
from edgeseg.output import fail

__all__ = ["app", "main"]

# Package → the extra that brings it.
EXTRAS = {
    "cv2": "cpu",
    "onnxruntime": "cpu",
    "torch": "train",
    "kornia": "train",
    "safetensors": "train",
    "onnxscript": "train",
    "onnx": "build",
    "matplotlib": "report",
    "jinja2": "report",
    "prometheus_client": "metrics",
    "starlette": "web",
    "uvicorn": "web",
    "h11": "web",
    "tensorrt_rtx": "tensorrt-rtx",
}

app = typer.Typer(
    name="edgeseg",
    help="From a folder of labelled pictures to a segmented camera stream.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich for a help text would double its time
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line and exit; entry point of ``edgeseg`` and ``python -m edgeseg``."""
    try:
        app()
    except EdgesegError as error:
        fail(error, as_json="--json" in sys.argv[1:])
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        missing = RuntimeMissing(
            f"this command needs {package}, which is not installed",
            mend=f"pip install 'edgeseg[{EXTRAS[package]}]'",
        )
        fail(missing, as_json="--json" in sys.argv[1:])
    sys.exit(0)


@app.callback()
def _before_every_command() -> None:
    log_to_stderr()


app.command("train")(offering(learning.train, VALUES["train"]))
app.command("eval")(learning.evaluate)
app.command("export")(building.export)
app.command("calibrate")(offering(building.calibrate, VALUES["calibrate"]))
app.command("build")(offering(building.build, VALUES["build"]))
app.command("sensitivity")(offering(measuring.sensitivity, VALUES["sensitivity"]))
app.command("infer")(offering(running.infer, VALUES["infer"]))
app.command("stream")(offering(streaming.stream, VALUES["stream"]))
app.command("inspect")(inspecting.inspect)
app.command("doctor")(measuring.doctor)
app.command("demo")(measuring.demo)
app.add_typer(benching.app, name="bench")
app.add_typer(data.app, name="data")
