"""The command line: each command parses its options, calls the library and prints one result.

Progress and log go to stderr, the result goes to stdout: lines or a table, or with ``--json`` one
JSON document. An error exits with the code of its class (:mod:`edgeseg.errors`). Commands import
what they need when they run, so that ``edgeseg --help`` is fast and ``edgeseg stream`` never
imports torch.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Collection
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

import edgeseg
from edgeseg.cli.output import BROKEN_PIPE, INTERRUPTED, fail, leave, prepare_streams, print_error
from edgeseg.cli.system import of_system
from edgeseg.console import log_to_stderr, visible
from edgeseg.errors import EdgesegError, RuntimeMissing, UsageError

__all__ = ["main", "make_app"]

# Package → extra that installs it.
EXTRAS = {
    "cv2": "cpu",
    "onnxruntime": "cpu",
    "torch": "train",
    "kornia": "train",
    "safetensors": "train",
    "onnxscript": "build",
    "onnx": "build",
    "matplotlib": "report",
    "jinja2": "report",
    "prometheus_client": "metrics",
    "paho": "mqtt",
    "yaml": "convert",
    "starlette": "web",
    "uvicorn": "web",
    "h11": "web",
    "tensorrt_rtx": "tensorrt-rtx",
}

# Typer bundles click since 0.25 and depended on it before, so the class lives in two places.
_CLICK: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

BENCH_COMPARE = "bench compare"

COMMANDS = {
    "train": ("learning.train", "Train a network on labelled pictures."),
    "eval": ("learning.evaluate", "Measure the accuracy of an artefact on labelled pictures."),
    "export": ("exporting.export", "Export a checkpoint to ONNX and check it against PyTorch."),
    "import": ("importing.import_", "Import a segmentation network made elsewhere."),
    "calibrate": ("building.calibrate", "Select pictures and measure tensor ranges for INT8."),
    "build": ("building.build", "Build an engine, and reject it if it is not accurate."),
    "sensitivity": (
        "measuring.sensitivity",
        "Rank layers by the accuracy that INT8 or FP16 costs.",
    ),
    "infer": ("running.infer", "Segment pictures into label maps and overlays."),
    "stream": ("streaming.stream", "Segment a camera or video, live."),
    "bench": ("benching.bench", "Measure latency and accuracy of engines in one run."),
    BENCH_COMPARE: ("benching.compare", "Compare two benchmarks."),
    "inspect": ("inspecting.inspect", "Describe an artefact; exits with 3 if it has problems."),
    "doctor": ("measuring.doctor", "Diagnose this machine and suggest fixes."),
    "demo": ("measuring.demo", "Run every step on bundled pictures, without a GPU."),
    "data": ("data.app", "Convert and check labelled pictures."),
}
"""Command → module of this package and the function in it, or the application of a group; and
the first sentence of its help, which is all that the list of commands needs."""


def make_app(needed: Collection[str] = COMMANDS.keys()) -> typer.Typer:
    """Make the application of the command line.

    Args:
        needed: Names of the commands that can be run. Importing the others takes longer than
            parsing what the user wrote, so these are listed only.
    """
    app = typer.Typer(
        name="edgeseg",
        help="From a folder of labelled pictures to a segmented camera stream.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # importing rich would double the time of --help
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_before_every_command)
    for name, (place, summary) in COMMANDS.items():
        if name not in needed:
            app.command(name, help=summary)(_listed)
            continue
        module, _, attribute = place.partition(".")
        command = getattr(importlib.import_module(f"edgeseg.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> NoReturn:
    """Run the command line and exit."""
    prepare_streams()
    if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
        signal.signal(signal.SIGINT, _Interrupt())
    # Imports create what lasts; walking it at every 700th object costs a twentieth of the start.
    gc.set_threshold(50_000)
    try:
        status = _run()
    except SystemExit as ended:
        # Click exits with 1 if the reader of its output has gone.
        broken = isinstance(ended.__context__, BrokenPipeError)
        status = BROKEN_PIPE if broken else ended.code
    leave(status if isinstance(status, int) else 0)


class _Interrupt:
    """Handler of Ctrl-C: raises KeyboardInterrupt, but not while a module is imported.

    Compiled modules drop the exception or raise another, and the command would go on with half a
    library. It waits for the end of the import, for a second at most, and then ends the process.
    """

    def __init__(self) -> None:
        self._tries = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not main.__code__:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                self._tries += 1
                if self._tries > 20:
                    os._exit(INTERRUPTED)
                again = threading.Timer(0.05, signal.raise_signal, [number])
                again.daemon = True
                again.start()
                return
            frame = frame.f_back
        raise KeyboardInterrupt


def _run() -> object:
    """Run the command and return its exit code, or None."""
    as_json = "--json" in sys.argv[1:]
    try:
        words = _words(sys.argv[1:])
        status = make_app(_needed(words))(words, standalone_mode=False)
        sys.stdout.flush()
        return status
    except _CLICK as error:
        # Typer may check choices through pydantic, which begins its messages so.
        error.message = (error.message or "").replace("Value error, ", "")
        told = io.StringIO()
        error.show(told)
        with contextlib.suppress(OSError):  # The exit code still reports the error.
            sys.stderr.write(visible(told.getvalue(), lines=True))
        if as_json:
            print_error(UsageError(error.format_message()))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except EdgesegError as error:
        fail(error, as_json=as_json)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        missing = RuntimeMissing(
            f"this command needs {package}, which is not installed",
            hint=f"pip install 'edgeseg[{EXTRAS[package]}]'",
        )
        fail(missing, as_json=as_json)
    except Exception as error:
        told_as = of_system(error)
        if told_as is None:
            raise
        fail(told_as, as_json=as_json)


def _words(arguments: list[str]) -> list[str]:
    """Join the two words of ``bench compare``, since ``bench`` alone is a command as well."""
    two = BENCH_COMPARE.split()
    return [BENCH_COMPARE, *arguments[2:]] if arguments[:2] == two else arguments


def _needed(words: list[str]) -> Collection[str]:
    """Return the commands that these words may run; a shell asks for completions without words."""
    if words and words[0] in COMMANDS:
        return words[:1]
    return () if words and COMMANDS.keys().isdisjoint(words) else COMMANDS.keys()


def _listed() -> None:
    """Stand for a command in the list of commands."""


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgeseg {edgeseg.__version__}")
        raise typer.Exit


def _before_every_command(
    version: Annotated[  # noqa: ARG001 - its callback uses it
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    log_to_stderr()
