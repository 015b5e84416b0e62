"""bench/attacks.py: what it sees of a stream, with and without strangers' connections."""

import importlib
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_held_connections_are_seen(
    write_network: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("starlette", reason="needs edgeseg[web]")
    monkeypatch.syspath_prepend(ROOT)
    attacks = importlib.import_module("bench.attacks")
    with attacks.running(write_network(tmp_path / "m.onnx"), tmp_path, ROOT) as stream:
        alone = attacks.watch(stream, "web", "nothing", 0.3, connections=0, burst=20)
        attacker = multiprocessing.get_context("spawn").Process(
            target=attacks.hold, args=(stream.ports["web"], attacks.ATTACKS["idle"], 20, 20, 60)
        )
        attacker.start()
        try:
            deadline = time.monotonic() + 60
            while stream.connections("web") == 0:
                assert time.monotonic() < deadline
                attacker.join(0.02)
            held = attacks.watch(stream, "web", "nothing", 1.0, connections=0, burst=20)
        finally:
            attacker.kill()
            attacker.join()
    assert alone.connections == 0 < held.connections
    for row in (alone, held):
        assert row.probes == row.answered > 0
    attacks.write(tmp_path, [alone, held], "Two rows.")
    rows = json.loads((tmp_path / "attacks.json").read_text())["rows"]
    assert [row["connections"] for row in rows] == [0, held.connections]
    assert (tmp_path / "attacks.md").read_text().count("\n| ") == 3
