"""A local cluster of two workers that all tests of this folder share, and small archives."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeseg.archive import ArchiveConfig
from edgeseg.archive.cluster import Cluster, connected
from edgeseg.options.inference import Outputs

TWO = Cluster("local", workers=2)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, nuclei: Path) -> Path:
    """An archive of 24 pictures in two folders, one below the other. Never written to."""
    root = tmp_path_factory.mktemp("archive")
    for number, path in enumerate(sorted((nuclei / "train/images").iterdir())[:24]):
        folder = root / "a" if number % 3 else root / "a" / "b"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    return root


@pytest.fixture(scope="session")
def engine(trained: Path) -> Path:
    """A real INT8 engine of ONNX Runtime, which runs with or without a cluster to the same bits."""
    return trained / "model.int8.onnx"


@pytest.fixture
def config(engine: Path, tmp_path: Path) -> Callable[..., ArchiveConfig]:
    """``config(path, …, every=2)``: into ``tmp_path/out``, without overlays."""

    def make(*paths: object, cluster: Cluster = TWO, **options: Any) -> ArchiveConfig:
        outputs = Outputs(tmp_path / "out", overlays=False)
        return ArchiveConfig(engine, [*map(str, paths)], outputs, cluster, **options)

    return make


def ray_processes() -> set[int]:
    """Processes of Ray that hang on this one, or were left behind by one of edgeseg."""
    found = set()
    mine = {child.pid for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if process.info["pid"] in mine and ("ray::" in line or "/ray/" in line):
            found.add(process.info["pid"])
    return found


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """Two workers on this machine; at the end no process of theirs is left."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs edgeseg[cluster]")
    with connected(TWO):
        import ray

        assert ray_processes()
        yield ray
    _, alive = psutil.wait_procs([psutil.Process(p) for p in ray_processes()], timeout=10)
    assert not alive, [process.cmdline() for process in alive]
