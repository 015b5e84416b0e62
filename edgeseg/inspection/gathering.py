"""Gather an :class:`Inspection`: each step adds facts and records problems.

Whether an artefact can run on this machine is decided by metadata; no runtime is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgeseg.artifacts import sidecar as sidecars
from edgeseg.artifacts.card import CARD_KEY, ModelCard
from edgeseg.artifacts.documents import parse
from edgeseg.artifacts.files import is_file, open_file, read_capped, require_file, sha256_file
from edgeseg.artifacts.headers import FileContents, read_onnx, read_plan, read_safetensors
from edgeseg.artifacts.sidecar import SideCar, sidecar_path
from edgeseg.errors import ArtifactError, EdgesegError, MismatchedArtifact, UsageError
from edgeseg.inspection.document import Calibration, Inspection, Kind, Problem, RunsHere
from edgeseg.inspection.lineage import (
    gone_or_changed,
    lineage,
    network_link,
    read_ranges,
    read_set,
    set_link,
)
from edgeseg.machine import gpus, versions


def checkpoint_here() -> RunsHere:
    """Checkpoints run in PyTorch."""
    missing = [name for name in ("torch", "safetensors") if find_spec(name) is None]
    return _with_modules("torch", missing, "pip install 'edgeseg[train]'")


def network_here(sidecar: SideCar | None) -> RunsHere:
    """ONNX networks run in ONNX Runtime, on any processor, or in OpenVINO if built for that."""
    openvino = sidecar is not None and sidecar.runtime == "openvino"
    runtime, extra = ("openvino", "openvino") if openvino else ("onnxruntime", "cpu")
    missing = [name for name in (runtime, "cv2") if find_spec(name) is None]
    return _with_modules(runtime, missing, f"pip install 'edgeseg[{extra}]'")


def engine_here(path: Path, sidecar: SideCar) -> RunsHere:
    """Engines run in the very version that built them, on a GPU they were built for."""
    reason, hint = _obstacle(path, sidecar)
    return RunsHere(runs=reason is None, runtime=sidecar.runtime, reason=reason, hint=hint)


def _with_modules(runtime: str, missing: list[str], hint: str) -> RunsHere:
    if not missing:
        return RunsHere(runs=True, runtime=runtime)
    reason = f"{' and '.join(missing)} not installed"
    return RunsHere(runs=False, runtime=runtime, reason=reason, hint=hint)


def _obstacle(path: Path, sidecar: SideCar) -> tuple[str | None, str | None]:
    """Why not, and what to do: by the rules of the preflight, on the GPUs that NVML lists."""
    devices = gpus()
    if not devices:
        return (
            "there is no NVIDIA GPU that `nvidia-smi` lists",
            "run the ONNX network on this machine; `edgeseg doctor` says what there is",
        )
    found = versions((sidecar.runtime,)).get(sidecar.runtime)
    if found is None:
        rtx = sidecar.runtime == "tensorrt-rtx"
        hint = "pip install 'edgeseg[tensorrt-rtx]'" if rtx else "edgeseg doctor"
        return f"{sidecar.runtime} is not installed", hint
    try:
        from edgeseg.engines.cuda import DeviceFacts
        from edgeseg.engines.tensorrt.preflight import (
            RTX_HEADER_BYTES,
            Host,
            mismatch,
            rebuild_command,
        )
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed", "pip install 'edgeseg[cpu]'"
    with open_file(path) as stream:
        header = stream.read(RTX_HEADER_BYTES)
    # CUDA's first device runs an engine; NVML lists the same one first on most machines.
    gpu = devices[0]
    device = DeviceFacts(
        name=gpu.name,
        compute_capability=_capability(gpu.compute_capability),
        integrated=False,
        memory_mib=gpu.memory_mib or 0,
        driver_version=gpu.driver,
        runtime_version="",
    )
    host = Host(found, device)
    wrong = mismatch(sidecar, header, host)
    if wrong is None:
        return None, None
    reason = f"it was built for {wrong.made_for}, and this is {wrong.found}"
    return reason, rebuild_command(path, sidecar, wrong.targets)


def _capability(text: str) -> tuple[int, int]:
    """Parse ``8.6`` to (8, 6); (0, 0) if the driver does not report it."""
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


_KINDS: dict[str, Kind] = {
    ".safetensors": "checkpoint",
    ".pt": "checkpoint",
    ".pth": "checkpoint",
    ".ckpt": "checkpoint",
    ".onnx": "network",
    ".engine": "engine",
}


def kind_of(path: Path) -> Kind | None:
    """Kind of a file by its name; None if unclear."""
    if path.name.endswith(".ranges.json"):
        return "ranges"
    if path.suffix == ".json" and path.with_suffix("").suffix in _KINDS:
        return "side-car"
    return _KINDS.get(path.suffix)


def inspect_file(path: Path) -> Inspection:
    """One file of any kind; raises as :func:`edgeseg.inspection.inspect`."""
    if not os.path.lexists(path):
        raise UsageError(f"{path}: no such file", hint="check the path")
    if path.suffix != ".json" and path.suffix not in _KINDS:
        raise UsageError(
            f"{path}: expected {', '.join(_KINDS)} or .json, found {path.suffix!r}",
            hint="edgeseg inspect runs/NAME/model.onnx",
        )
    kind = kind_of(path)
    try:
        require_file(path)
        if kind is None:
            kind = _kind_of_json(path)
    except ArtifactError as error:
        return Inspection(
            path=str(path), kind=kind or "calibration set", problems=(Problem.of(error),)
        )
    gathering = _Gathering(path, kind)
    if kind == "side-car":
        gathering.side_car()
    elif kind == "ranges":
        gathering.ranges()
    elif kind == "calibration set":
        gathering.calibration_set()
    else:
        gathering.artifact()
    return gathering.result()


def _kind_of_json(path: Path) -> Kind:
    """Range files and side-cars may have any name; what stands in them tells them apart."""
    text = read_capped(path)
    for mark, kind in _MARKS:
        if mark in text:
            return kind
    return "calibration set"


_MARKS: tuple[tuple[bytes, Kind], ...] = (
    (b'"artifact_sha256"', "side-car"),
    (b'"onnx_sha256"', "ranges"),
)


class _Gathering:
    """The fields of an :class:`Inspection` as they become known."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self._path = path
        self._kind = kind
        self._known: dict[str, Any] = {"bytes": path.stat().st_size}
        self._problems: list[Problem] = []

    def result(self) -> Inspection:
        """Return the collected inspection."""
        # A cause is often found twice, by the hash and in what the bytes say.
        unique = tuple({problem.message: problem for problem in self._problems}.values())
        return Inspection(path=str(self._path), kind=self._kind, problems=unique, **self._known)

    def artifact(self) -> None:
        """A checkpoint, a network or an engine."""
        sidecar = self._side_car_of(self._path)
        self._vouch(sidecar)
        card = self._contents() or (sidecar.card if sidecar else None)
        self._known["card"] = card
        if sidecar is not None and card is not None and sidecar.card != card:
            self._wrong(
                MismatchedArtifact(
                    f"{sidecar_path(self._path)}: its card is not the one in {self._path.name}",
                    hint="copy file and side-car again",
                )
            )
        if card is not None:
            self._known["chain"] = lineage(self._path, card, sidecar)
        if self._kind == "checkpoint":
            self._known["runs_here"] = checkpoint_here()
        elif self._kind == "network":
            self._known["runs_here"] = network_here(sidecar)
        elif sidecar is not None:
            self._known["runs_here"] = engine_here(self._path, sidecar)

    def side_car(self) -> None:
        """A side-car by itself: what it says, and whether its artefact is what it says."""
        with self._noting():
            made = parse(SideCar, read_capped(self._path), str(self._path))
            self._tell(made)
            self._known["card"] = made.card
            artifact = self._path.with_suffix("")
            if os.path.lexists(artifact):
                self._known["vouched"] = False
                sidecars.verify(artifact, required=True)
                self._known["vouched"] = True

    def ranges(self) -> None:
        """A range file: on which network and which pictures it was measured."""
        with self._noting():
            made = read_ranges(self._path)
            self._known["sha256"] = sha256_file(self._path)
            recorded = Path(made.manifest)
            manifests = [p for p in (recorded, self._path.parent / recorded.name) if is_file(p)]
            found: str | None = None
            if manifests:
                with self._noting():
                    found = read_set(manifests[0]).set_sha256
            self._known["calibration"] = Calibration(
                set_sha256=made.set_sha256,
                pictures=made.pictures,
                method=made.method,
                tensors=len(made.ranges),
                manifest=made.manifest,
            )
            links = (
                network_link(self._path, made.onnx_sha256),
                set_link(manifests, found, made.set_sha256),
            )
            self._known["chain"] = links
            for link in links:
                if link.state == "differs":
                    self._wrong(
                        MismatchedArtifact(
                            f"{self._path} was measured on another {link.role} (sha256 "
                            f"{link.sha256[:12]}…) than {link.path} now is",
                            hint=f"edgeseg calibrate {self._path.parent} --from DIR --overwrite",
                        )
                    )

    def calibration_set(self) -> None:
        """The manifest of a calibration set, and each picture that it names."""
        with self._noting():
            made = read_set(self._path)
            self._known["sha256"] = sha256_file(self._path)
            missing, changed = gone_or_changed(made, self._path)
            self._known["calibration"] = Calibration(
                set_sha256=made.set_sha256,
                pictures=len(made.files),
                source=made.source,
                seed=made.seed,
                missing=missing,
                changed=changed,
            )
            if missing or changed:
                self._wrong(
                    MismatchedArtifact(
                        f"{self._path}: of {len(made.files)} pictures {missing} are gone and "
                        f"{changed} changed since the set was made",
                        hint=f"edgeseg calibrate --from {made.source} --out {self._path} "
                        "--overwrite",
                    )
                )

    def _side_car_of(self, artifact: Path) -> SideCar | None:
        with self._noting():
            made = sidecars.read(artifact, follow=self._kind != "engine")
            if made is not None:
                self._tell(made)
            return made
        return None

    def _tell(self, made: SideCar) -> None:
        self._known["sidecar"] = made.model_dump(mode="json", exclude={"card"})

    def _vouch(self, sidecar: SideCar | None) -> None:
        """Check what a loader would check, and the hash if worthwhile."""
        try:
            if self._kind == "engine":
                sidecars.verified_bytes(self._path)
            else:
                sidecars.verify(self._path, required=False)
        except EdgesegError as error:
            self._wrong(error)
        size = self._known["bytes"]
        if size > sidecars.MAX_ARTIFACT_BYTES:
            return
        if sidecar is None:
            self._unvouched()
        elif sidecar.artifact_bytes in (None, size):
            found = sha256_file(self._path)
            self._known |= {"sha256": found, "vouched": found == sidecar.artifact_sha256}
        else:
            self._known["vouched"] = False

    def _unvouched(self) -> None:
        """Without side-car no size is known: a file that holds nothing sensible is not hashed."""
        with self._noting():
            self._read()
            self._known["sha256"] = sha256_file(self._path)

    def _contents(self) -> ModelCard | None:
        with self._noting():
            contents, text = self._read()
            self._known["contents"] = contents
            if self._kind == "engine":
                return None
            if text is None:
                raise MismatchedArtifact(
                    f"{self._path} holds no {CARD_KEY}, so it was not made by edgeseg",
                    hint="make it with `edgeseg train` or `edgeseg export`",
                )
            return parse(ModelCard, text, f"{self._path} ({CARD_KEY})")
        return None

    def _read(self) -> tuple[FileContents, str | None]:
        if self._kind == "engine":
            return read_plan(self._path), None
        if self._kind == "network":
            return read_onnx(self._path)
        return read_safetensors(self._path)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Record an error raised in the block as a problem, and continue after it."""
        try:
            yield
        except EdgesegError as error:
            self._wrong(error)

    def _wrong(self, error: EdgesegError) -> None:
        self._problems.append(Problem.of(error))
