"""Each command with each kind of bad input: one sentence, the right exit code, nothing written."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BAD = Path(__file__).parent / "bad"


@pytest.fixture
def refuses(edgeseg: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command line that must end with ``code`` and say ``says``, and leave no file."""
    monkeypatch.chdir(tmp_path)

    def check(code: int, says: str, *arguments: object) -> None:
        before = _files(tmp_path)
        outcome = edgeseg(*arguments, "--json")
        assert outcome.code == code, outcome.err
        error = outcome.document["error"]
        assert error["exit_code"] == code
        assert says in error["message"], error
        assert "\n" not in error["message"]
        assert f"rror: {error['message']}" in outcome.err  # Typer writes a capital letter
        assert "Traceback" not in outcome.err
        assert "Value error" not in outcome.err
        assert _files(tmp_path) == before

    return check


def _files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if path.is_file()}


NETWORKS = [
    ("no-card.onnx", 3, "edgeseg.card", "eval build calibrate"),
    ("card-of-schema-99.onnx", 3, "schema version 99", "bench build calibrate"),
    ("card-of-another-size.onnx", 3, "card-of-another-size.onnx", "infer build calibrate"),
    ("external-data-outside.onnx", 3, "external-data-outside.onnx", "stream build calibrate"),
    ("missing.onnx", 2, "no such file", "eval calibrate build infer stream bench"),
]
"""Name, exit code, message, commands; eval, infer, stream and bench open a network alike."""


@pytest.mark.parametrize(
    ("name", "code", "says", "command"),
    [(*row, command) for *row, commands in NETWORKS for command in commands.split()],
)
def test_networks(
    name: str, code: int, says: str, command: str, refuses: Any, small_data: Path
) -> None:
    path = BAD / "networks" / name
    pictures = small_data / "val" / "images"
    arguments: dict[str, tuple[object, ...]] = {
        "eval": (path, "--data", small_data),
        "calibrate": (path, "--from", pictures),
        "build": (path, "--fp16", "--data", small_data),
        "infer": (path, pictures),
        "stream": (path, "--source", "test:?frames=2", "--no-window"),
        "bench": (path, "--data", small_data),
    }
    refuses(code, says, command, *arguments[command])


@pytest.mark.parametrize(
    ("command", "name", "code", "says"),
    [
        ("eval", "no-card.safetensors", 3, "edgeseg.card"),
        ("export", "card-of-schema-99.safetensors", 3, "schema version 99"),
        ("eval", "card-of-3-classes-weights-of-2.safetensors", 3, "card-of-3-classes"),
        ("export", "unknown-architecture.safetensors", 3, "unet-lyte"),
        ("eval", "one-tensor-missing.safetensors", 3, "one-tensor-missing.safetensors"),
        ("export", "nan-weights.safetensors", 3, "stem.0.weight holds NaN or infinity"),
        ("eval", "pickle-that-executes.pt", 3, "pickle"),
        ("export", "pickle-that-executes.pt", 3, "pickle"),
        ("export", "missing.safetensors", 2, "no such file"),
    ],
)
def test_checkpoints(
    command: str, name: str, code: int, says: str, refuses: Any, small_data: Path
) -> None:
    path = BAD / "checkpoints" / name
    more = ("--data", small_data) if command == "eval" else ("--out", "model.onnx")
    refuses(code, says, command, path, *more)
    assert not Path("pwned").exists()


DATASETS = [
    ("no-pictures", 3, "found none"),
    ("mask-missing", 3, "expected its mask"),
    ("picture-missing", 3, "expected its picture"),
    ("mask-size-differs", 3, "expected the size of its picture 32×32, found 32×20"),
    ("mask-value-17-of-2-classes", 3, "17"),
    ("mask-in-colour", 3, "a.png"),
    ("mask-truncated", 3, "a.png"),
    ("classes-not-json", 3, "not valid JSON"),
    ("classes-repeat", 3, "repeat"),
    ("missing", 2, "no such folder"),
]


@pytest.mark.parametrize(("name", "code", "says"), DATASETS)
def test_datasets_in_eval(name: str, code: int, says: str, refuses: Any, trained: Path) -> None:
    refuses(code, says, "eval", trained / "model.onnx", "--data", BAD / "datasets" / name)


@pytest.mark.parametrize(("name", "code", "says"), [row for row in DATASETS if "17" not in row[0]])
def test_datasets_in_train(name: str, code: int, says: str, refuses: Any) -> None:
    options = ("--size", "32x32", "--epochs", 1, "--width", 8, "--depth", 1, "--run", "runs/new")
    refuses(code, says, "train", "--data", BAD / "datasets" / name, *options)


@pytest.mark.parametrize(
    "name", ["empty.png", "truncated.png", "text-named.png", "random-bytes.jpg"]
)
def test_pictures(name: str, refuses: Any, trained: Path, tmp_path: Path) -> None:
    path = BAD / "pictures" / name
    refuses(3, name, "infer", trained / "model.onnx", path, "--out", tmp_path / "out")
    taken = ("--from", path, "--out", "m.json", "--overwrite")
    refuses(3, name, "calibrate", trained / "model.onnx", *taken)


@pytest.mark.parametrize(
    "source",
    [
        "missing.mkv",
        str(BAD / "videos/empty.mkv"),
        str(BAD / "videos/text-named.mp4"),
        str(BAD / "pictures/empty.png"),
        "rtsp://user:secret@127.0.0.1:9/live",
        "nonsense://host/x",
        "/dev/video99",
    ],
)
def test_sources(source: str, refuses: Any, edgeseg: Any, trained: Path) -> None:
    code = 2 if source.startswith("nonsense") else 5
    arguments = ("stream", trained / "model.onnx", "--source", source, "--no-window")
    refuses(code, "", *arguments)
    outcome = edgeseg(*arguments)
    assert "secret" not in outcome.out + outcome.err


@pytest.mark.parametrize("option", ["--save-masks", "--keep-uncertain"])
def test_a_file_where_a_folder_is_expected_is_refused_and_stays(
    edgeseg: Any, trained: Path, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("kept")
    common = ("--source", "test:64x48?frames=1", "--no-window")
    outcome = edgeseg(
        "stream", trained / "model.onnx", *common, option, path, "--overwrite", "--json"
    )
    assert outcome.code == 2
    assert "expected a folder, found a file" in outcome.document["error"]["message"]
    assert "--overwrite" not in outcome.document["error"]["hint"]
    assert path.read_text() == "kept"


def test_a_truncated_video_ends_with_5_only_if_strict(edgeseg: Any, trained: Path) -> None:
    arguments = ("stream", trained / "model.onnx", "--source", BAD / "videos/truncated.mkv")
    lenient = edgeseg(*arguments, "--no-window", "--json")
    assert lenient.code == 0
    assert 0 < lenient.document["frames"] < 50
    assert edgeseg(*arguments, "--no-window", "--strict", "--json").code == 5


def test_no_camera_says_what_to_do_instead(
    edgeseg: Any, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if list(Path("/dev").glob("video*")):
        pytest.skip("this machine has a camera")
    outcome = edgeseg("stream", trained / "model.onnx", "--camera", 0, "--no-window")
    assert outcome.code == 5
    for needed in ("/dev/video", "--source test:", "rtsp://", ".mkv"):
        assert needed in outcome.err


@pytest.mark.parametrize("name", ["empty.json", "not-json.json", "truncated.json", "missing.json"])
def test_ranges(name: str, refuses: Any, trained: Path, small_data: Path) -> None:
    code = 2 if name == "missing.json" else 3
    ranges = BAD / "ranges" / name
    refuses(code, name, "build", trained / "model.onnx", "--int8", "--ranges", ranges)


@pytest.mark.parametrize(
    ("says", "arguments"),
    [
        ("no path given, and no run", ("export",)),
        ("no path given, and no run", ("build", "--fp16")),
        ("x.onnx is already exported", ("export", "x.onnx")),
        ("one precision is needed, found none", ("build", "x.onnx")),
        ("found fp16 and int8", ("build", "x.onnx", "--fp16", "--int8")),
        ("-class-drop: expected points", ("build", "x.onnx", "--fp16", "--max-class-drop", "x")),
        ("'cuda' is not one of 'auto', 'onnx", ("build", "x.onnx", "--fp16", "--runtime", "cuda")),
        ("'magic' is not one of", ("calibrate", "x.onnx", "--from", ".", "--method", "magic")),
        ("a source is needed", ("stream",)),
        (
            "--record-minutes, --record-keep and --codec need a recording",
            ("stream", "--source", "test:", "--record-keep", 2),
        ),
        ("no alert rule", ("stream", "--source", "test:", "--alert-lines", "a")),
        ("'latency', 'throughput'", ("stream", "--source", "test:", "--mode", "fast")),
        ("--size: expected WIDTHxHEIGHT", ("train", "--data", ".", "--size", "large")),
        ("'squash' is not one of", ("train", "--data", ".", "--resize", "squash")),
        ("'cubic' is not one of", ("train", "--data", ".", "--reduce", "cubic")),
    ],
)
def test_command_lines(says: str, arguments: tuple[object, ...], refuses: Any) -> None:
    refuses(2, says, *arguments)


@pytest.mark.parametrize("option", ["--bogus", "--count"])
def test_options_that_no_command_has(option: str, edgeseg: Any) -> None:
    outcome = edgeseg("eval", option)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "{run}/model.safetensors", "--out", "/proc/x/model.onnx"),
        ("calibrate", "{run}/model.onnx", "--from", "{pictures}", "--out", "/proc/x/m.json",
         "--overwrite"),
        ("infer", "{run}/model.onnx", "{pictures}", "--out", "/proc/x"),
        ("stream", "{run}/model.onnx", "--source", "test:?frames=2", "--record", "/proc/x/a.mkv"),
        ("bench", "{run}/model.onnx", "--seconds", "0.1", "--report", "/proc/x/a.html"),
        ("train", "--data", "{data}", "--run", "/proc/x"),
        ("demo", "--out", "/proc/x"),
    ],
)  # fmt: skip
def test_unwritable_outputs(
    arguments: tuple[str, ...], refuses: Any, trained: Path, small_data: Path
) -> None:
    pictures = small_data / "val" / "images"
    refuses(
        2,
        "/proc/x",
        *(a.format(run=trained, pictures=pictures, data=small_data) for a in arguments),
    )


@pytest.mark.parametrize(
    ("absent", "extra", "lines"),
    [
        ("torch", "train", [
            "train --data {data} --run runs/new",
            "export {run} --out copy.onnx",
            "eval {run}/model.safetensors --data {data}",
        ]),
        ("onnx", "build", [
            "build {run}/model.onnx --fp16",
            "calibrate {run}/model.onnx --from {data}/val/images",
        ]),
        ("tensorrt_rtx", "tensorrt-rtx", [
            "build {run}/model.onnx --fp32 --runtime tensorrt-rtx",
        ]),
        ("onnxruntime", "cpu", ["stream {run}/model.onnx --source test:?frames=1"]),
    ],
)  # fmt: skip
def test_a_missing_package_names_the_extra_that_brings_it(
    absent: str, extra: str, lines: list[str], trained: Path, small_data: Path, tmp_path: Path
) -> None:
    """All command lines in one interpreter, each ended by ``SystemExit``."""
    commands = [line.format(run=trained, data=small_data).split() for line in lines]
    script = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "from edgeseg.cli import main\n"
        f"for words in {commands!r}:\n"
        "    sys.argv = ['edgeseg', *words]\n"
        "    try: main()\n"
        "    except SystemExit as ended: print(ended.code, file=sys.stderr)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert child.returncode == 0, child.stderr
    assert re.findall(r"^\d+$", child.stderr, re.MULTILINE) == ["4"] * len(lines)
    assert child.stderr.count(f"edgeseg[{extra}]") == len(lines)
    assert "Traceback" not in child.stderr
