"""What several test modules share: the bundled pictures, one small real run, the command line."""

import contextlib
import fcntl
import functools
import gc
import importlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Two OpenMP pools on two cores fight; the networks of the tests are too small to need threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import pytest
from benchmarks import shorten_benchmarks
from hypothesis import settings
from pages import DOCS
from walking import Walk, walk

from edgeseg.benchmark import coldstart
from edgeseg.data.folders import bundled_sample

settings.register_profile("edgeseg", deadline=None)  # a machine that is busy is not a fault
settings.load_profile("edgeseg")

HERE = Path(__file__).parent
SLOW = (
    "docs/test_quickstart.py",  # trains the network that the demo takes
    "archive/test_cluster.py",
    "test_packaging.py",
    "test_demo.py",
    "test_papers.py",
    "ops/test_native_builds.py",
    "test_cli.py",
    "test_system.py",
    "training/test_distributed.py",
    "engines/test_tensorrt_build_matrix.py",
    "faults/test_leaks.py",
    "stream/web/test_page.py",
    "test_sensitivity.py",
    "test_building.py",
    "engines/test_cuda_kernels.py",
    "engines/test_frames.py",
    "test_cli_errors.py",
    "faults/test_signals.py",
    "faults/test_cameras.py",
    "training/test_loop.py",
    "deploy/test_dockerfiles.py",
    "test_gpu_probe.py",
    "engines/test_engine_commands.py",
    "test_fuzz.py",
    "importing/test_module.py",
    "precision/test_operators.py",
    "models/test_encoders.py",
    "test_bad_artefacts.py",
    "test_benching.py",
    "training/test_resume.py",
    "engines/test_tensorrt_run.py",
    "test_open_size.py",
    "stream/test_gstreamer.py",
    "test_export.py",
    "benchmark/test_command.py",
    "doctor/test_probe.py",
    "models/test_fcn.py",
    "importing/test_page.py",
    "training/test_shared_memory.py",
    "training/test_plots.py",
    "test_completion.py",
    "models/test_pretrained.py",
    "models/test_vgg.py",
    "test_unet_export.py",
    "engines/test_triton.py",
)
"""Files of more than five seconds of two processors, the longest first.

A run begins with them, so that none goes on alone at its end. All others are ``fast``.
"""

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--native-bfloat16",
        choices=("as-it-is", "yes", "no"),
        default="as-it-is",
        help="Whether trainings find a processor that computes in bfloat16; see .ci/processors.",
    )


def pytest_configure() -> None:
    """Keep bytecode, or each process of each test compiles anew what pip did not, for seconds."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session", autouse=True)
def native_bfloat16(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let ``--autocast auto`` choose as on another processor, where that is asked for."""
    choice = request.config.getoption("--native-bfloat16")
    if choice == "as-it-is":
        yield
        return
    import torch

    found = {"avx512_bf16": choice == "yes"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {HERE / name: place for place, name in enumerate(SLOW)}
    if gone := [path for path in places if not path.exists()]:
        raise pytest.UsageError(f"SLOW in {__file__} names what is not there: {gone[0]}")
    items.sort(key=lambda item: places.get(item.path, len(places)))
    for item in items:
        if item.path not in places:
            item.add_marker(pytest.mark.fast)


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of the collections that tests of leaks ask for."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def operators_read_once() -> Iterator[None]:
    """Keep what an export reads of onnxscript's sources, half a second of it each time."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(ImportError, AttributeError):
        if "torch" in sys.modules:
            from torch.onnx._internal.exporter import _registration

            read = functools.cache(_registration.onnxscript_apis.get_torchlib_ops)
            patch.setattr(_registration.onnxscript_apis, "get_torchlib_ops", read)
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; the tests that look are skipped where it is not there."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(QUIET))
        yield started
        started.close()


@pytest.fixture(scope="session")
def torchvision() -> Any:
    """torchvision; without its kernels, where they are for another build of this torch."""
    try:
        return pytest.importorskip("torchvision", reason="torchvision is not installed")
    except RuntimeError:
        import torch

        # Its Python code describes these two kernels to torch, and needs no other.
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
        return importlib.import_module("torchvision")


@pytest.fixture(scope="session")
def nuclei() -> Path:
    """Root of the bundled pictures."""
    return bundled_sample()


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """``once("name", make)``: a folder that ``make(folder)`` fills, in one of the workers.

    The others wait for it. Nobody writes into it later.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder, whole = shared / f"once-{name}", shared / f"once-{name}.whole"
        with (shared / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def quickstart(once: Once) -> Walk:
    """The quick start, walked in an empty folder; its network is the best trained one of all."""
    home = once("quickstart", _walk_quickstart)
    return Walk(home / "tour", **json.loads((home / "walk.json").read_text()))


def _walk_quickstart(home: Path) -> None:
    (home / "tour").mkdir()
    done = walk(DOCS / "quickstart.md", home / "tour")
    (home / "walk.json").write_text(json.dumps({"ran": done.ran, "faults": done.faults}))


@pytest.fixture(scope="session")
def small_data(once: Once, nuclei: Path) -> Path:
    """Eight training and four validation pictures of the bundled sample."""
    return once("data", lambda folder: _copy_some(nuclei, folder / "nuclei")) / "nuclei"


def _copy_some(nuclei: Path, root: Path) -> None:
    root.mkdir()
    shutil.copy(nuclei / "classes.json", root)
    for split, count in (("train", 8), ("val", 4)):
        names = sorted(path.name for path in (nuclei / split / "images").iterdir())[:count]
        for part in ("images", "instances"):
            (root / split / part).mkdir(parents=True)
            for name in names:
                shutil.copy(nuclei / split / part / name, root / split / part)


@pytest.fixture
def no_run_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots of a run have tests of their own, and take longer than a training of seconds."""
    from edgeseg.training import loop

    for name in ("save_curves", "save_predictions"):
        monkeypatch.setattr(loop, name, lambda path, *what: path.touch())


@pytest.fixture
def no_cold_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks start no fresh processes, which take a second each, three an engine."""
    monkeypatch.setattr(coldstart, "measure", lambda path, threads: "not tried")


@pytest.fixture(scope="session")
def trained(once: Once, small_data: Path) -> Path:
    """A run folder with all that the CPU can make: checkpoint, ONNX, ranges, FP16, INT8.

    Trained for a few seconds: a real network, though not a good one. Never written to; tests
    that alter files take ``run_copy``.
    """
    return once("trained", lambda home: _train(small_data, home)) / "runs" / "small"


def _train(small_data: Path, home: Path) -> None:
    from edgeseg.building import BuildConfig, build
    from edgeseg.export.network import export_onnx
    from edgeseg.options.training import Recipe, TrainConfig
    from edgeseg.precision.calibration import collect
    from edgeseg.precision.ranges import measure_ranges
    from edgeseg.training.loop import train

    run = home / "runs" / "small"
    config = TrainConfig(
        data=small_data,
        run=run,
        size=(64, 96),
        options={"width": 8, "depth": 2},
        recipe=Recipe(epochs=6, batch_size=4, autocast="off"),  # the same on every processor
    )
    train(config)
    network = run / "model.onnx"
    export_onnx(run / "model.safetensors", network)
    manifest = home / "calib" / "small" / "manifest.json"
    collect(small_data / "train" / "images", manifest, count=8)
    measure_ranges(network, manifest).save(run / "model.ranges.json")
    for precision in ("fp16", "int8"):
        build(BuildConfig(network, precision, "onnxruntime", data=small_data, max_drop=0.5))


@pytest.fixture
def run_copy(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``trained`` to alter, at ``runs/small`` below the current folder."""
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "runs" / "small"
    # Another worker may be computing in it, which shows as a partial folder.
    shutil.copytree(trained, target, ignore=shutil.ignore_patterns("*.partial"))
    shutil.copytree(trained.parents[1] / "calib", tmp_path / "calib")
    return target


@dataclass(frozen=True)
class Outcome:
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Stdout, which must be exactly one JSON document."""
        value: dict[str, Any] = json.loads(self.out)
        return value


@pytest.fixture
def edgeseg(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a command line in this process: ``edgeseg("build", "--fp16") -> Outcome``.

    What leaves file descriptors 1 and 2 is captured, so that native libraries are heard too.
    """
    from edgeseg.cli import main

    logger = logging.getLogger("edgeseg")

    def run(*arguments: object) -> Outcome:
        logger.handlers.clear()
        monkeypatch.setattr(sys, "argv", ["edgeseg", *map(str, arguments)])
        if arguments[:1] == ("bench",):
            shorten_benchmarks(monkeypatch)
        if arguments[:1] in (("train",), ("stream",)):
            # It is for the rest of the process, whose memory tests measure.
            allocator = "edgeseg.cli.allocator.keep_freed_memory"
            monkeypatch.setattr(allocator, lambda: None)
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    yield run
    # The command line owns its process and sets the log up for good; the next test's is its own.
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session")
def scene() -> Callable[[int], np.ndarray]:
    """Seed → sharp boxes of many colours, uint8 (96, 128, 3)."""

    def draw(seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        image = np.full((96, 128, 3), random.integers(0, 255, 3), np.uint8)
        for _ in range(25):
            x, y = int(random.integers(128)), int(random.integers(96))
            colour = [int(value) for value in random.integers(0, 255, 3)]
            size = int(random.integers(5, 30))
            cv2.rectangle(image, (x, y), (x + size, y + size // 2), colour, cv2.FILLED)
        return image

    return draw
