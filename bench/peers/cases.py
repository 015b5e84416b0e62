"""Benchmark cases: which peers are measured, on which file of the run, and which are compared."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from host import Peer
from setup import HERE, ROOT, environment, package_tree, python_of, quiet

from edgeseg.artifacts.documents import Document, load
from edgeseg.artifacts.files import require_file
from edgeseg.errors import EdgesegError, UsageError

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
"""Where JetPack and NVIDIA's containers put it, off the path."""


@dataclass(frozen=True)
class Case:
    """One peer in one configuration.

    Attributes:
        key: Short and unique.
        peer: The environment, a folder's name.
        name: In tables.
        precision: ``fp32`` or ``int8``.
        artifact: File of the run that it takes; None where it has a network of its own.
        arguments: Script, then its arguments; ``{…}`` is filled in by :func:`start`.
        alone: A program that infers on random input, without frames around it.
        live: Measured on the camera too.
    """

    key: str
    peer: str
    name: str
    precision: str
    artifact: str | None
    arguments: tuple[str, ...]
    alone: bool = False
    live: bool = False


@dataclass(frozen=True)
class Compared:
    """``mine / theirs`` of one figure; ``at_most`` is the goal, where there is one."""

    what: str
    mine: str
    theirs: str
    at_most: float | None = None


class SetUp(Document):
    """What :mod:`setup` noted of an environment."""

    notes: tuple[str, ...]
    tree: str | None


FP32, INT8 = "model.onnx", "model.int8.onnx"
OPENVINO_FP32, OPENVINO_INT8 = "model.fp32.openvino.onnx", "model.int8.openvino.onnx"

_YOLO = "{work}/ultralytics/models/yolo26n-sem"


def _ours(key: str, runtime: str, precision: str, artifact: str, *options: str) -> Case:
    drawn = ", names and legend drawn" if options else ""
    arguments = ("peer_edgeseg.py", "{artifact}", *options)
    live = (runtime, precision, drawn) == ("ONNX Runtime", "int8", "")
    return Case(
        key, "edgeseg", f"edgeseg, {runtime}{drawn}", precision, artifact, arguments, live=live
    )


def _by_hand(key: str, precision: str, artifact: str, *options: str) -> Case:
    name = "ONNX Runtime by hand" + (", with care" if options else "")
    arguments = ("peer_handwritten.py", "{artifact}", "{network}", *options)
    return Case(key, "handwritten", name, precision, artifact, arguments, live=precision == "int8")


def _ceiling(key: str, precision: str, artifact: str) -> Case:
    arguments = ("peer_benchmark_app.py", "{artifact}")
    name = "OpenVINO benchmark_app"
    return Case(key, "openvino", name, precision, artifact, arguments, alone=True)


def _pytorch(key: str, name: str, *options: str) -> Case:
    arguments = ("peer_pytorch.py", "{artifact}", "{network}", *options)
    return Case(key, "pytorch", name, "fp32", "model.safetensors", arguments)


def _ultralytics(key: str, runtime: str, model: str, *, live: bool = False) -> Case:
    arguments = ("peer_ultralytics.py", model)
    return Case(
        key,
        "ultralytics",
        f"Ultralytics, own network, {runtime}",
        "fp32",
        None,
        arguments,
        live=live,
    )


CASES = (
    _ours("ours-ort-int8", "ONNX Runtime", "int8", INT8),
    _ours("ours-ort-fp32", "ONNX Runtime", "fp32", FP32),
    _ours("ours-ov-int8", "OpenVINO", "int8", OPENVINO_INT8),
    _ours("ours-ov-fp32", "OpenVINO", "fp32", OPENVINO_FP32),
    _ours("ours-names", "ONNX Runtime", "int8", INT8, "--drawn", "default"),
    _by_hand("hand-int8", "int8", INT8),
    _by_hand("hand-fp32", "fp32", FP32),
    _by_hand("care-int8", "int8", INT8, "--care", "yes"),
    _pytorch("eager", "PyTorch, eager"),
    _pytorch("compiled", "PyTorch, compiled", "--compiled", "yes"),
    _ultralytics("yolo-torch", "PyTorch", f"{_YOLO}.pt"),
    _ultralytics("yolo-ort", "ONNX Runtime", f"{_YOLO}.onnx", live=True),
    _ultralytics("yolo-ov", "OpenVINO", f"{_YOLO}_openvino_model"),
    _ceiling("ceiling-int8", "int8", OPENVINO_INT8),
    _ceiling("ceiling-fp32", "fp32", OPENVINO_FP32),
    Case(
        *("trtexec", "trtexec", "TensorRT trtexec", "fp32", FP32),
        ("peer_trtexec.py", "{trtexec}", "{artifact}", "{work}/model.plan"),
        alone=True,
    ),
)

EIGHTH = 1 / 8
"""Of Ultralytics' time a frame outside inference: what ours is to stay within."""

COMPARED = (
    Compared("fps", "ours-ort-int8", "hand-int8"),
    Compared("fps", "ours-ort-fp32", "hand-fp32"),
    Compared("fps", "ours-ort-int8", "care-int8"),
    Compared("fps", "ours-ov-int8", "ceiling-int8"),
    Compared("fps", "ours-ov-fp32", "ceiling-fp32"),
    Compared("fps", "ours-ort-fp32", "eager"),
    Compared("fps", "ours-ort-fp32", "compiled"),
    Compared("cpu_ms", "ours-ort-int8", "hand-int8"),
    Compared("cpu_ms", "ours-ort-int8", "care-int8"),
    Compared("outside_ms", "ours-ort-int8", "hand-int8"),
    Compared("outside_ms", "ours-ort-fp32", "yolo-ort", EIGHTH),
    Compared("outside_ms", "ours-ov-fp32", "yolo-ov", EIGHTH),
    Compared("outside_ms", "ours-ort-fp32", "yolo-torch", EIGHTH),
)


def present(work: Path, run: Path, only: Sequence[str] | None) -> tuple[list[Case], list[str]]:
    """The cases to measure, and a remark on each peer that this machine cannot have.

    Raises:
        UsageError: An environment is not set up, the run lacks a file, or nothing is left.
        EdgesegError: The notes of an environment, or a file, are damaged.
    """
    chosen = [case for case in CASES if only is None or case.peer in only]
    remarks = []
    if trtexec() is None and any(case.peer == "trtexec" for case in chosen):
        remarks.append("trtexec: not present on this machine.")
        chosen = [case for case in chosen if case.peer != "trtexec"]
    if not chosen:
        raise UsageError("there is nothing to measure: " + " ".join(remarks))
    for peer in dict.fromkeys(case.peer for case in chosen if case.peer != "trtexec"):
        remarks += [f"{peer}: {note}." for note in _require(work, peer).notes]
    for name in dict.fromkeys(case.artifact for case in chosen if case.artifact):
        _require_artifact(run / name)
    return chosen, remarks


def start(case: Case, work: Path, run: Path, network: Path) -> Peer:
    """Start a case's process and wait until it is ready.

    Raises:
        InferenceError: It ended before.
    """
    places = {
        "artifact": str(run / case.artifact) if case.artifact else "",
        "network": str(network),
        "trtexec": trtexec() or "",
        "work": str(work),
    }
    script, *arguments = (part.format(**places) for part in case.arguments)
    own = case.peer != "trtexec"
    python = str(python_of(work, case.peer)) if own else shutil.which("python3") or "python3"
    command = [python, str(HERE / script), *arguments]
    name = f"{case.name}, {case.precision}"
    return Peer(name, command, _environment(case, work), work / f"{case.key}.log")


def trtexec() -> str | None:
    """Where the program lies, None where there is none."""
    return shutil.which("trtexec") or (TRTEXEC if os.access(TRTEXEC, os.X_OK) else None)


def _environment(case: Case, work: Path) -> Mapping[str, str]:
    if case.peer == "pytorch":  # its environment has no edgeseg; the network's module is ours
        return environment({"PYTHONPATH": str(ROOT)})
    return quiet(work / "ultralytics") if case.peer == "ultralytics" else environment()


def _require(work: Path, peer: str) -> SetUp:
    command = f"python bench/peers/setup.py --work {work} --only {peer}"
    notes = work / peer / "setup.json"
    if not notes.exists():
        raise UsageError(f"the peer {peer} is not set up in {work}", hint=command)
    found = load(SetUp, notes)
    if peer == "edgeseg" and found.tree != package_tree():
        raise UsageError(
            f"{work / peer} holds edgeseg of another commit than this tree", hint=command
        )
    return found


def _require_artifact(path: Path) -> None:
    try:
        require_file(path)
    except EdgesegError as error:
        runtime = "openvino" if "openvino" in path.name else "onnxruntime"
        precision = "int8" if "int8" in path.name else "fp32"
        made = {
            "model.safetensors": "edgeseg train --data DIR",
            FP32: f"edgeseg export {path.parent}",
        }
        build = f"edgeseg build {path.parent} --{precision} --runtime {runtime}"
        raise UsageError(error.message, hint=made.get(path.name, build)) from error


def compared(keys: Sequence[str]) -> Iterator[Compared]:
    """Those comparisons of which both sides were measured."""
    return (pair for pair in COMPARED if pair.mine in keys and pair.theirs in keys)
