"""Create a virtual environment for each peer, with the exact versions that were tested.

    python bench/peers/setup.py                    # all, below runs/peers
    python bench/peers/setup.py --only edgeseg     # after a change of the package

``requirements/NAME.txt`` is installed as it is, ``requirements/NAME-bare.txt`` without what it
asks for. PyTorch's wheels from PyPI bring CUDA along: ``PIP_INDEX_URL`` may name another index.
Nothing of a peer is imported by edgeseg or shipped with it. Ultralytics is under the AGPL; it
is measured as its users run it, in an environment of its own.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "runs" / "peers"
NAMES = ("edgeseg", "handwritten", "openvino", "pytorch", "ultralytics")
NOTES = "setup.json"
"""What was done to an environment beyond installing: ``{"notes": [...], "tree": ...}``."""

STAND_IN = (
    '"""Empty: this machine\'s torchvision does not import; prediction uses nothing of it."""\n'
)

logger = logging.getLogger("edgeseg.bench.peers")


def python_of(work: Path, name: str) -> Path:
    """The interpreter of a peer's environment."""
    return work / name / "venv" / "bin" / "python"


def package_tree() -> str | None:
    """What git calls the package's committed state; None outside a repository."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD:edgeseg"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def set_up(work: Path, name: str) -> None:
    """Make the environment of one peer, or bring an old one to the versions named.

    Raises:
        subprocess.CalledProcessError: pip or a step after it failed, and said why on stderr.
    """
    done = work / name / NOTES
    done.unlink(missing_ok=True)  # an environment without it is half made
    python = python_of(work, name)
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
    requirements = HERE / "requirements" / f"{name}.txt"
    _pip(python, "-r", str(requirements))
    if (bare := requirements.with_name(f"{name}-bare.txt")).exists():
        _pip(python, "--no-deps", "-r", str(bare))
    after = {"edgeseg": _edgeseg, "ultralytics": _ultralytics}
    notes = after[name](python, work / name) if name in after else []
    tree = package_tree() if name == "edgeseg" else None
    done.write_text(json.dumps({"notes": notes, "tree": tree}, indent=2) + "\n")


def _edgeseg(python: Path, _folder: Path) -> Sequence[str]:
    no_gpu = "--config-settings=cmake.define.EDGESEG_CUDA=OFF"
    _pip(python, "--no-deps", "--no-build-isolation", "--force-reinstall", no_gpu, str(ROOT))
    return []


def _ultralytics(python: Path, folder: Path) -> Sequence[str]:
    notes = []
    if not _imports(python, "torchvision.ops"):  # which the stand-in has not
        found = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = Path(
            subprocess.run(found, capture_output=True, text=True, check=True).stdout[:-1]
        )
        (packages / "torchvision" / "__init__.py").write_text(STAND_IN)
        notes.append(
            "torchvision's wheel does not import beside this PyTorch, so an empty module stands "
            "in for it: semantic segmentation imports it and uses nothing of it"
        )
    models = folder / "models"
    models.mkdir(exist_ok=True)
    script = HERE / "ultralytics_models.py"
    subprocess.run([python, script], cwd=models, env=quiet(folder), check=True)
    return notes


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's and ``extra``, without the path to the caller's own packages."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return kept | dict(extra or {})


def quiet(folder: Path) -> dict[str, str]:
    """An environment in which Ultralytics keeps its settings in ``folder`` and calls nobody."""
    (folder / "config").mkdir(parents=True, exist_ok=True)
    settings = {"CONFIG_DIR": str(folder / "config"), "OFFLINE": "true", "AUTOINSTALL": "false"}
    return environment({f"YOLO_{key}": value for key, value in settings.items()})


def _imports(python: Path, module: str) -> bool:
    command = [str(python), "-c", f"import {module}"]
    ran = subprocess.run(command, env=environment(), capture_output=True, check=False)
    return ran.returncode == 0


def _pip(python: Path, *arguments: str) -> None:
    options = ["--quiet", "--disable-pip-version-check"]
    # pip's stdout would mix with the report of whoever calls this.
    command = [str(python), "-m", "pip", "install", *options, *arguments]
    subprocess.run(command, env=environment(), check=True, stdout=sys.stderr)


def main() -> int:
    """Set up the peers named; say which failed."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--work", type=Path, default=WORK, help="working folder (default runs/peers)"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="PEER")
    options = parser.parse_args()
    failed = []
    for name in options.only:
        logger.info("%s: %s", name, options.work / name)
        try:
            set_up(options.work.resolve(), name)
        except subprocess.CalledProcessError as error:
            logger.error("%s: %s ended with %d", name, error.cmd[:4], error.returncode)
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
