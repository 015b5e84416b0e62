"""bench/all.py: one command for all tables of speed, which says how far to trust each."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import BENCH, scripts


@pytest.fixture
def script() -> Iterator[ModuleType]:
    with scripts() as load:
        yield load("all")


def step(**changes: Any) -> dict[str, Any]:
    plain = {
        "created": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "A", "cpu_flags": ["avx2", "avx512_vnni"]},
        "other_cores": 0.0,
        "minutes": 1.0,
        "status": 0,
    }
    return plain | changes


def test_every_step_is_a_script(script: ModuleType) -> None:
    assert [name for name, (path, *_) in script.STEPS.items() if not (BENCH / path).is_file()] == []


def test_steps_get_the_paths_of_the_run_and_a_failure_stops_none(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    (tmp_path / "writes.py").write_text(
        "import sys, pathlib; pathlib.Path(__file__).with_suffix('.txt').write_text(sys.argv[1])"
    )
    steps = {"startup": ("fails.py",), "kernels": ("writes.py", "{data}/train")}
    monkeypatch.setattr(script, "STEPS", steps)
    monkeypatch.setattr(script, "HERE", tmp_path)
    monkeypatch.setattr(script, "RESULTS", tmp_path)
    options = ["--run", "run", "--data", str(tmp_path / "set"), "--videos", "clip.mp4"]
    monkeypatch.setattr(sys, "argv", ["all.py", *options])
    with pytest.raises(SystemExit, match="failed: startup"):
        script.main()
    assert (tmp_path / "writes.txt").read_text() == str(tmp_path / "set/train")
    found = json.loads((tmp_path / "all.json").read_text())["steps"]
    assert {name: row["status"] for name, row in found.items()} == {"startup": 3, "kernels": 0}
    text = (tmp_path / "README.md").read_text()
    assert "Failed, so that older results stand: `startup`." in text

    # One step again leaves the others' record as it is.
    (tmp_path / "fails.py").write_text("")
    monkeypatch.setattr(sys, "argv", ["all.py", "startup", *options])
    script.main()
    again = json.loads((tmp_path / "all.json").read_text())["steps"]
    assert again["kernels"] == found["kernels"]
    assert again["startup"]["status"] == 0


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"other_cores": 0.5}, "Other work ran beside `b`"),
        ({"machine": {"cpu": "A", "cpu_flags": ["avx2"]}}, "`b` has no INT8 instructions"),
        ({"machine": {"cpu": "B", "cpu_flags": ["avx_vnni"]}}, "different processors"),
        ({"status": 1}, "older results stand: `b`"),
    ],
)
def test_doubts(script: ModuleType, change: dict[str, Any], doubt: str) -> None:
    assert script.doubts({"a": step(), "b": step()}) == []
    (line,) = script.doubts({"a": step(), "b": step(**change)})
    assert doubt in line
