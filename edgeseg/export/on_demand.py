"""The network of a run, exported or copied where it is not there yet."""

from __future__ import annotations

import logging
from pathlib import Path

from edgeseg.artifacts import sidecar
from edgeseg.artifacts.files import sha256_file, write_atomic
from edgeseg.errors import UsageError
from edgeseg.runs import (
    BUNDLED,
    BUNDLED_PREFIX,
    CHECKPOINT,
    NETWORK,
    RANGES,
    RUNS,
    artifact_in,
    located,
    newest_run,
)

logger = logging.getLogger(__name__)


def network_of(path: Path | None) -> Path:
    """Return the FP32 ONNX network: as given, or that of a run, exported if necessary.

    Raises:
        UsageError: There is no run, or it holds neither checkpoint nor network.
        EdgesegError: The export failed.
    """
    path = None if path is None else located(path)
    if path is not None and not path.is_dir():
        return path
    run = path or newest_run()
    if run.parent == BUNDLED:
        run = _own_copy(run)
    network, checkpoint = run / NETWORK, run / CHECKPOINT
    if checkpoint.exists() and not _is_exported(checkpoint, network):
        # torch, which a run of a bundled or imported network does without.
        from edgeseg.export.network import export_onnx

        logger.info("exporting %s first", checkpoint)
        export_onnx(checkpoint, network)
    return artifact_in(run, (NETWORK,), f"edgeseg export {checkpoint}")


def _own_copy(bundled: Path) -> Path:
    """Copy a bundled network to ``runs/NAME``, unless it is there, to build engines beside it.

    Raises:
        UsageError: Another network is there.
    """
    run = RUNS / bundled.name
    if not (run / NETWORK).exists() and not (run / CHECKPOINT).exists():
        run.mkdir(parents=True, exist_ok=True)
        # The network comes last: a copy that was interrupted has none, and is made again.
        for name in (RANGES, f"{NETWORK}.json", NETWORK):
            write_atomic(run / name, (bundled / name).read_bytes())
        logger.info("copied %s%s to %s", BUNDLED_PREFIX, bundled.name, run)
    elif not (run / NETWORK).exists() or sha256_file(run / NETWORK) != sha256_file(
        bundled / NETWORK
    ):
        raise UsageError(
            f"{run} holds another network than {BUNDLED_PREFIX}{bundled.name}",
            hint=f"rename {run}, or name its network",
        )
    return run


def _is_exported(checkpoint: Path, network: Path) -> bool:
    if not network.exists():
        return False
    made_from = sidecar.read(network)
    return made_from is not None and made_from.card.parent_sha256 == sha256_file(checkpoint)
