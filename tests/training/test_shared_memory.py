"""Workers that read pictures where /dev/shm is small: a training without them, or one sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import sys
from pathlib import Path
from edgeseg.artifacts.card import InputSpec
from edgeseg.data import loader
from edgeseg.data.folders import read_split
from edgeseg.training.memory import memory_explained

if sys.argv[2] == "blind":
    loader._workers = lambda batch_bytes: 1
split = read_split(Path(sys.argv[1]), "train")
spec = InputSpec(height=1024, width=1024)
tensors = loader.LabelledTensors(split, split.classes, spec, memory_limit=0)
with memory_explained():
    print(sum(1 for _ in loader.batches(tensors, loader.Order(len(tensors), 2))))
"""


@pytest.mark.parametrize(
    ("how", "says"), [("checked", "docker run --shm-size"), ("blind", "ran out of shared memory")]
)
def test_a_small_dev_shm_ends(small_data: Path, how: str, says: str) -> None:
    """Two pictures of 1024×1024 need 26 MiB of the 8 that there are."""
    private = ("unshare", "-m", "bash", "-c")
    mount = "mount -t tmpfs -o size=8m tmpfs /dev/shm"
    if not shutil.which("unshare") or subprocess.run([*private, mount], check=False).returncode:
        pytest.skip("mounting a small /dev/shm takes root and mount namespaces of Linux")
    command = [*private, f'{mount} && exec "$@"', "_", sys.executable, "-c", READ]
    ended = subprocess.run(
        [*command, str(small_data), how], capture_output=True, text=True, timeout=100, check=False
    )
    assert says in ended.stderr
    assert (ended.returncode == 0) == (how == "checked")
    assert ended.stdout.strip() == ("4" if how == "checked" else "")
