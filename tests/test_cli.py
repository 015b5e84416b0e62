"""The commands as users run them, on one small real run, against what docs/json.md promises."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

JSON_PAGE = Path(__file__).parents[1] / "docs" / "json.md"
PACKAGE = Path(__file__).parents[1] / "edgeseg"


def documented_keys() -> dict[str, set[str]]:
    """Command → keys of its JSON document, from the table in docs/json.md."""
    page = JSON_PAGE.read_text("utf-8")
    rows = re.findall(r"^\| `([a-z ]+)` \| `([a-z0-9_ ]+)` \|$", page, re.MULTILINE)
    return {command: set(keys.split()) for command, keys in rows}


def test_every_command_documents_its_json() -> None:
    from edgeseg.cli import make_app

    app = make_app()
    groups = {"": app} | {f"{group.name} ": group.typer_instance for group in app.registered_groups}
    commands = {
        f"{group}{command.name or command.callback.__name__}"  # type: ignore[union-attr]
        for group, its in groups.items()
        for command in its.registered_commands  # type: ignore[union-attr]
    }
    assert documented_keys().keys() == commands


def test_the_version_is_that_of_the_installed_package() -> None:
    from edgeseg.cli import make_app

    shown = CliRunner().invoke(make_app(["doctor"]), ["--version"])
    assert (shown.exit_code, shown.output) == (
        0,
        f"edgeseg {importlib.metadata.version('edgeseg')}\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("data check", "{data}", "--sheet", "sheet.png"),
        ("train", "--data", "{data}", "--size", "32x32", "--epochs", "1", "--width", "8",
         "--depth", "1", "--run", "runs/new"),
        ("eval", "--data", "{data}"),
        ("export", "--out", "copy.onnx"),
        ("calibrate", "--from", "{data}/train/images", "--count", "4", "--overwrite"),
        ("build", "--fp16"),
        ("build", "--fp32"),
        ("build", "--int8", "--data", "{data}", "--max-drop", "50"),
        ("infer", "{data}/val/images"),
        ("stream", "--source", "test:64x48@25?frames=3", "--no-window", "--record", "a.mkv"),
        ("bench", "--data", "{data}", "--seconds", "0.1"),
        ("doctor",),
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)  # fmt: skip
@pytest.mark.usefixtures("no_cold_starts")
def test_json_is_one_document_with_the_documented_keys(
    arguments: tuple[str, ...], edgeseg: Any, run_copy: Path, small_data: Path
) -> None:
    command, *options = (argument.format(data=small_data) for argument in arguments)
    outcome = edgeseg(*command.split(), *options, "--json")
    assert outcome.code == 0, outcome.err
    assert set(outcome.document) == documented_keys()[command]


def test_an_imported_run_is_exported_already(edgeseg: Any, run_copy: Path, tmp_path: Path) -> None:
    (run_copy / "model.safetensors").unlink()
    refused = edgeseg("export", run_copy)
    assert refused.code == 2
    assert f"{run_copy / 'model.onnx'} is already exported" in refused.err
    served = edgeseg("export", run_copy, "--triton", tmp_path / "models", "--json")
    assert served.code == 0, served.err


def test_without_json_stdout_is_for_people(edgeseg: Any, run_copy: Path) -> None:
    outcome = edgeseg("build", "--fp16", "--runtime", "onnxruntime", "--overwrite")
    assert outcome.code == 0, outcome.err
    with pytest.raises(json.JSONDecodeError):
        json.loads(outcome.out)
    assert "engine: runs/small/model.fp16.onnx" in outcome.out
    assert "taking runs/small, the newest run" in outcome.err


def test_build_right_after_training_exports_first(
    edgeseg: Any, run_copy: Path, small_data: Path
) -> None:
    for path in run_copy.glob("model*"):
        if not path.name.startswith("model.safetensors"):
            path.unlink()
    built = edgeseg("build", "--fp16", "--data", small_data, "--json")
    assert built.code == 0, built.err
    assert built.document["gate"]["metric"] == "mean_iou"
    ways = ("--every-frame", "--no-window", "--json")
    streamed = edgeseg("stream", "--source", "test:64x48?frames=5", *ways)
    assert streamed.code == 0, streamed.err
    assert streamed.document["engine"] == built.document["engine"]
    assert streamed.document["frames"] == 5


def test_an_alert_is_raised_and_a_labelled_stream_is_scored(
    edgeseg: Any, run_copy: Path, tmp_path: Path
) -> None:
    for name in ("masks", "frames"):
        Path(name).mkdir()
    for index in range(3):
        cv2.imwrite(f"frames/{index}.png", np.zeros((64, 96, 3), np.uint8))
        cv2.imwrite(f"masks/{index}.png", np.zeros((64, 96), np.uint8))
    outputs = (
        "--alert",
        "nucleus >= 0%",
        "--alert-lines",
        "alerts.jsonl",
        "--json-lines",
        "a.jsonl",
    )
    outcome = edgeseg(
        *("stream", run_copy, "--source", "frames", "--ground-truth", "masks"),
        *(*outputs, "--metrics", "0", "--no-window", "--json"),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.document["ground_truth"]["frames"] == 3
    events = [json.loads(line) for line in Path("alerts.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "raised"
    frames = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert [line["name"] for line in frames if "frame" in line] == ["0.png", "1.png", "2.png"]


def test_several_sources_have_a_recording_and_a_mask_folder_each(
    edgeseg: Any, run_copy: Path, tmp_path: Path
) -> None:
    sources = ("--source", "test:64x48?frames=4", "--source", "test:96x64?frames=3")
    outputs = ("--record", "out/a.mkv", "--save-masks", "masks", "--json-lines", "a.jsonl")
    ways = ("--every-frame", "--lanes", 2, "--no-window", "--json")
    outcome = edgeseg("stream", run_copy, *sources, *outputs, *ways)
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert [source["frames"] for source in document["sources"]] == [4, 3]
    assert document["mode"] == "throughput"
    assert document["lanes"]["engines"] == 2
    assert document["recordings"] == ["out/a-0.mkv", "out/a-1.mkv"]
    for path, frames, width in zip(document["recordings"], (4, 3), (64, 96), strict=True):
        video = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
        shapes = []
        while (frame := video.read()[1]) is not None:
            shapes.append(frame.shape[1])
        assert shapes == [width] * frames
    names = sorted(str(path) for path in Path("masks").rglob("*.png"))
    assert names == [
        f"masks/{n}/{k:06d}.png" for n, count in ((0, 4), (1, 3)) for k in range(count)
    ]
    assert Path("a.jsonl").read_text().count('{"frame"') == 7


def test_a_network_older_than_its_checkpoint_is_exported_again(
    edgeseg: Any, run_copy: Path, small_data: Path
) -> None:
    from edgeseg.artifacts.files import sha256_file
    from edgeseg.options.training import Recipe, TrainConfig
    from edgeseg.training.loop import train

    options = {"width": 8, "depth": 1}
    recipe = Recipe(epochs=1)
    train(TrainConfig(data=small_data, run=run_copy, size=(32, 32), options=options, recipe=recipe))
    outcome = edgeseg("build", "--fp32", "--json")
    assert outcome.code == 0, outcome.err
    from edgeseg.artifacts import sidecar

    made = sidecar.read(run_copy / "model.onnx")
    assert made is not None
    assert made.card.parent_sha256 == sha256_file(run_copy / "model.safetensors")


def test_eval_says_the_same_of_checkpoint_and_network(
    edgeseg: Any, trained: Path, small_data: Path
) -> None:
    scores = [
        edgeseg("eval", trained / name, "--data", small_data, "--json").document["mean_iou"]
        for name in ("model.safetensors", "model.onnx", "model.int8.onnx")
    ]
    from edgeseg.artifacts.documents import load
    from edgeseg.artifacts.sidecar import SideCar

    card = load(SideCar, trained / "model.safetensors.json").card
    assert scores[0] == pytest.approx(card.metrics["mean_iou"], abs=1e-6)
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
    assert scores[2] != scores[0]


def test_infer_writes_label_maps_at_the_size_of_the_picture(
    edgeseg: Any, trained: Path, small_data: Path, tmp_path: Path
) -> None:
    outcome = edgeseg(
        "infer", trained / "model.onnx", small_data / "val/images", "--out", tmp_path, "--json"
    )
    assert outcome.code == 0, outcome.err
    for entry in outcome.document["pictures"]:
        picture, labels = cv2.imread(entry["picture"]), cv2.imread(entry["labels"], -1)
        assert labels.shape == picture.shape[:2]
        share = np.mean(labels == 1)
        assert entry["class_shares"]["nucleus"] == pytest.approx(share, abs=1e-6)
        assert sum(entry["class_shares"].values()) == pytest.approx(1, abs=1e-5)
        assert cv2.imread(entry["overlay"]).shape == picture.shape


def test_the_module_runs_as_the_command_does() -> None:
    child = subprocess.run(
        [sys.executable, "-m", "edgeseg", "build", "--json"], capture_output=True, check=False
    )
    assert child.returncode == 2
    assert json.loads(child.stdout)["error"]["kind"] == "UsageError"
    assert b"Traceback" not in child.stderr


_RIDDLE = re.compile(r"(Of|That|The same)\b")
_SECTION = re.compile(r"^( *)(?:Args|Attributes):\n((?:\1 +.*(?:\n|\Z)|[ \t]*\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"\*{0,2}\w+(?: \([^)]*\))?: +(.*)")


def _help_texts(command: Any, name: str = "edgeseg") -> Iterator[tuple[str, str]]:
    """Yield (where, help text) of each parameter of a command and its subcommands."""
    for parameter in command.params:
        yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""
    for part, inner in getattr(command, "commands", {}).items():
        yield from _help_texts(inner, f"{name} {part}")


def _described(source: str) -> Iterator[tuple[str, str]]:
    """Yield (line, description) of each `Args:` and `Attributes:` entry in the docstrings."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        docstring = ast.get_docstring(node) if isinstance(node, kinds) else None
        for _, section in _SECTION.findall(docstring or ""):
            for line in section.splitlines():
                if entry := _ENTRY.fullmatch(line.strip()):
                    yield line.strip(), entry[1]


def _riddles(texts: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{where}: {text}" for where, text in texts if _RIDDLE.match(text)]


def test_help_texts_begin_with_a_noun_or_verb() -> None:
    from edgeseg.cli import make_app

    texts = list(_help_texts(get_command(make_app())))
    assert any(where == "edgeseg bench compare threshold" for where, _ in texts)
    assert not _riddles(texts)


def test_no_summary_is_cut_off() -> None:
    """Click shortens the summaries of commands to a line of 80 columns."""
    from edgeseg.cli import make_app

    listed = CliRunner().invoke(make_app(), ["--help"]).output.partition("Commands:")[2]
    assert "bench compare" in listed
    assert "..." not in listed


def test_the_list_of_commands_is_that_of_their_docstrings() -> None:
    from edgeseg.cli import make_app

    short, whole = (CliRunner().invoke(app, ["--help"]) for app in (make_app(()), make_app()))
    assert short.output == whole.output


def test_argument_descriptions_begin_with_a_noun_or_verb() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): _riddles(_described(path.read_text("utf-8")))
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: riddles for name, riddles in found.items() if riddles} == {}


def test_a_riddle_is_found() -> None:
    source = '''
class Camera:
    """A camera.

    Attributes:
        size: The same of frames
            a second.

    Of the rest: nothing is said.
    """
'''
    assert _riddles(_described(source)) == ["size: The same of frames: The same of frames"]
