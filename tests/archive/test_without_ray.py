"""What needs no cluster: refusals, and that Ray is imported where it was asked for alone."""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeseg.archive.cluster import Cluster, _pool
from edgeseg.errors import UsageError

PACKAGE = Path(__file__).parents[2] / "edgeseg"


def test_only_one_module_imports_ray() -> None:
    importing = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import) and any(a.name.startswith("ray") for a in node.names)
    }
    assert importing == {"archive/cluster.py"}


def test_ray_that_is_not_installed(
    edgeseg: Any, trained: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = edgeseg(
        *("infer", trained / "model.onnx", small_data / "val/images", "--cluster", "local"),
        *("--out", tmp_path, "--json"),
    )
    assert outcome.code == 4
    assert outcome.document["error"]["hint"] == "pip install 'edgeseg[cluster]'"


def test_as_many_workers_as_there_is_room_and_work_for() -> None:
    assert _pool(Cluster(workers=5), {}, 100) == (5, 5)
    assert _pool(Cluster(workers=5), {}, 3) == (3, 3)
    assert _pool(Cluster(), {"CPU": 7.0}, 100) == (1, 7)
    assert _pool(Cluster(), {"CPU": 7.0}, 3) == (1, 3)
    assert _pool(Cluster(threads=2), {"CPU": 7.0}, 100) == (1, 3)
    assert _pool(Cluster(gpus=1), {"CPU": 64.0, "GPU": 4.0}, 100) == (1, 4)
    for cluster, has in ((Cluster(threads=8), {"CPU": 7.0}), (Cluster(gpus=1), {"CPU": 7.0})):
        with pytest.raises(UsageError, match="no machine has them"):
            _pool(cluster, has, 100)
