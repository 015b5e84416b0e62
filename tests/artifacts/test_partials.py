"""Temporary files end with their writer, killed or not, and locks hold between processes."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeseg.artifacts.files import write_atomic
from edgeseg.artifacts.partials import alone, partial_file, partial_folder
from edgeseg.artifacts.workshop import workshop
from edgeseg.errors import UsageError

WRITER = """
import sys
from pathlib import Path
from edgeseg.artifacts.files import atomic_path
from edgeseg.artifacts.partials import alone
from edgeseg.artifacts.workshop import workshop
path = Path(sys.argv[1])
with workshop(path.parent) as shop, atomic_path(path) as partial, alone(path, doing="writes"):
    partial.write_bytes(b"half")
    (shop / "inside").write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to write ``path`` and goes on until its input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        try:
            yield child
        finally:
            child.kill()


def unfinished(folder: Path) -> list[str]:
    return sorted(n for n in os.listdir(folder) if ".partial" in n or n.endswith(".edgeseg-lock"))


def test_what_a_killed_writer_left_is_gone_with_the_next_write(tmp_path: Path) -> None:
    write_atomic(tmp_path / "earlier", b"x")
    with writer(tmp_path / "live.png") as alive:
        kept = unfinished(tmp_path)
        assert len(kept) == 3  # a file, a folder and a lock
        with writer(tmp_path / "dead.png") as dead:
            assert len(unfinished(tmp_path)) == 6
            dead.send_signal(signal.SIGKILL)
            dead.wait()
        assert len(unfinished(tmp_path)) == 6  # nobody was left to remove it
        write_atomic(tmp_path / "next", b"x")
        assert unfinished(tmp_path) == kept
        assert not (tmp_path / "dead.png").exists()
        alive.communicate("")
    assert (tmp_path / "live.png").read_bytes() == b"half"
    assert unfinished(tmp_path) == []


def test_a_folder_left_behind_is_gone_with_the_next_build(tmp_path: Path) -> None:
    with writer(tmp_path / "dead.onnx") as dead:
        dead.kill()
        dead.wait()
    with workshop(tmp_path) as shop:
        assert unfinished(tmp_path) == [shop.name]
    assert unfinished(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["a.partial.png", ".a.partial", ".a.0123456789ab.partial.b.c", ".0123456789ab.partial"]
)
def test_files_of_similar_names_stay(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"mine")
    write_atomic(tmp_path / "next", b"x")
    assert (tmp_path / name).exists()


def test_the_file_of_another_machine_is_left_for_a_day(tmp_path: Path) -> None:
    """Locks of some network file systems do not reach from machine to machine."""
    with partial_file(tmp_path / "a.png") as mine:
        token = re.sub(r"\.([0-9a-f])", lambda found: "." + "10"[found[1] == "1"], mine.name)
    theirs = tmp_path / token
    theirs.write_bytes(b"half")
    write_atomic(tmp_path / "next", b"x")
    assert theirs.exists()
    os.utime(theirs, (0, 0))
    write_atomic(tmp_path / "next", b"x")
    assert not theirs.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    with partial_folder(tmp_path) as folder:
        name = folder.name
    (tmp_path / "precious").mkdir()
    (tmp_path / name).symlink_to("precious")
    write_atomic(tmp_path / "next", b"x")
    assert (tmp_path / "precious").is_dir()


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / ("é" * 125 + ".json"), b"x")
    assert unfinished(tmp_path) == []


@contextmanager
def writer_is_refused(path: Path) -> Iterator[str]:
    """What a process says that tries to write ``path``."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    yield done.stderr


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with (
        writer(path) as first,
        pytest.raises(UsageError, match="another process makes"),
        alone(path, doing="makes"),
    ):
        pass
    assert first.returncode == -signal.SIGKILL
    with alone(path, doing="makes"):
        write_atomic(tmp_path / "next", b"x")  # which keeps the lock that is held
        assert unfinished(tmp_path) == [".model.onnx.edgeseg-lock"]
        with writer_is_refused(path) as message:
            assert "another process writes" in message
    assert unfinished(tmp_path) == []


FORKED = """
import os, sys
from pathlib import Path
from edgeseg.artifacts.partials import alone
held = alone(Path(sys.argv[1]), doing="makes")
held.__enter__()
if os.fork() == 0:
    print("forked", flush=True)
    sys.stdin.read()
os._exit(0)
"""


def test_a_process_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    """As workers of a data loader that outlive a killed training for a moment."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKED, tmp_path / "a"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "forked\n"
        assert parent.wait() == 0
        with alone(tmp_path / "a", doing="makes"):  # while the other one waits for its input
            pass
