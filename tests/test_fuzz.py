"""Damaged cards, side-cars, manifests, range files, checkpoints and networks: our errors, or none.

The ordinary run takes some hundreds of each; ``EDGESEG_FUZZ=100000`` takes so many documents
in all, and a tenth of that in networks and checkpoints.
"""

import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fuzzing import Damage, damaged_bytes

from edgeseg.artifacts.card import CARD_KEY, ModelCard
from edgeseg.artifacts.documents import Document, parse
from edgeseg.artifacts.sidecar import SideCar
from edgeseg.engines.external_data import require_local_weights
from edgeseg.errors import ArtifactError, EdgesegError
from edgeseg.inspection import inspect
from edgeseg.precision.calibration_set import CalibrationSet
from edgeseg.precision.ranges import Ranges

IN_ALL = int(os.environ.get("EDGESEG_FUZZ", "3000"))
SEEDS = range(2)


@contextmanager
def bounded_memory(more: int = 1024**3) -> Iterator[None]:
    """Let this process have so many bytes more address space; what asks for more fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def valid(name: str, run: Path) -> tuple[type[Document], str]:
    """A real document of each kind, as edgeseg wrote it."""
    made: dict[str, tuple[type[Document], Path]] = {
        "side-car": (SideCar, run / "model.int8.onnx.json"),
        "ranges": (Ranges, run / "model.ranges.json"),
        "manifest": (CalibrationSet, run.parents[1] / "calib/small/manifest.json"),
    }
    if name == "card":
        text = (run / "model.onnx.json").read_text()
        return ModelCard, json.dumps(json.loads(text)["card"])
    model, path = made[name]
    return model, json.dumps(json.loads(path.read_text()))


def outcome(read: Callable[[], object]) -> str:
    """``loads``, or the class of our error, whose text is held to be one that can be shown."""
    try:
        read()
    except EdgesegError as raised:
        error = raised
    else:
        return "loads"
    assert isinstance(error, ArtifactError), error
    assert len(error.message) < 1000, error.message
    assert error.message.isprintable(), error.message
    assert error.hint, error.message
    return type(error).__name__


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["card", "side-car", "manifest", "ranges"])
def test_documents_load_or_are_refused(name: str, seed: int, trained: Path) -> None:
    model, text = valid(name, trained)
    damage = Damage(text, seed)
    seen: dict[str, int] = {}
    with bounded_memory():
        for _ in range(IN_ALL // (4 * len(SEEDS))):
            damaged = damage.one()
            ended = outcome(lambda data=damaged: _round_trip(parse(model, data, "a.json")))
            seen[ended] = seen.get(ended, 0) + 1
    # Where one of them never happens the damage is of no use.
    assert set(seen) == {"loads", "CorruptArtifact", "MismatchedArtifact"}, seen


def _round_trip(document: Document) -> None:
    """What loads can be written as JSON that anybody reads, and be read again."""
    text = document.to_json()
    json.loads(text, parse_constant=pytest.fail)
    assert parse(type(document), text, "again") == document


@pytest.mark.parametrize("seed", SEEDS)
def test_networks_are_read_without_hanging(seed: int, trained: Path, tmp_path: Path) -> None:
    data = small_network(trained)
    chance, path = random.Random(seed), tmp_path / "model.onnx"
    seen = set()
    with bounded_memory():
        for index in range(IN_ALL // (10 * len(SEEDS))):
            path.write_bytes(damaged_bytes(data, chance))
            seen.add(outcome(lambda: require_local_weights(path)))
            inspected(path, rendered=index % 10 == 0)
    assert seen == {"loads", "CorruptArtifact"}


def small_network(run: Path) -> bytes:
    """The bundled network with its weights cut short, so that damage meets structure."""
    import onnx

    model = onnx.load(run / "model.int8.onnx")
    for tensor in model.graph.initializer:
        tensor.raw_data = tensor.raw_data[:2]
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_cards_inside_of_artefacts(kind: str, trained: Path, tmp_path: Path) -> None:
    damage = Damage(valid("card", trained)[1], 7)
    path = tmp_path / f"model.{kind}"
    for index in range(IN_ALL // 60):
        card = damage.one().decode(errors="replace")
        path.write_bytes(_with_card(kind, card))
        inspected(path, rendered=index % 4 == 0)


def _with_card(kind: str, card: str) -> bytes:
    if kind == "onnx":
        import onnx

        model = onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="g"))
        onnx.helper.set_model_props(model, {CARD_KEY: card})
        return bytes(model.SerializeToString())
    header = json.dumps(
        {
            "__metadata__": {CARD_KEY: card},
            "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_checkpoint_headers(seed: int, trained: Path, tmp_path: Path) -> None:
    data = (trained / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    damage = Damage(data[8 : 8 + length].decode(), seed)
    chance, path = random.Random(seed), tmp_path / "model.safetensors"
    with bounded_memory():
        for _ in range(IN_ALL // (40 * len(SEEDS))):
            header = damage.one()
            stated = chance.choice((len(header), len(header), length, 2**40, 2**64 - 1, 0))
            path.write_bytes(stated.to_bytes(8, "little") + header + data[8 + length :])
            inspected(path)


def inspected(path: Path, *, rendered: bool = True) -> None:
    """An inspection of it can be told as JSON and to people, and says in text what is wrong."""
    from rich.console import Console

    from edgeseg.inspection.rendering import show

    found = inspect(path)
    json.dumps(found.to_dict(), allow_nan=False)
    for problem in found.problems:
        assert problem.message.isprintable(), problem.message
    if rendered:
        with Path(os.devnull).open("w") as nowhere:
            show(Console(file=nowhere), found)
