import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseg.artifacts.files import (
    atomic_path,
    is_file,
    newest,
    open_file,
    read_capped,
    require_file,
    sha256_file,
    write_atomic,
)
from edgeseg.errors import CorruptArtifact, UntrustedArtifact, UsageError


def test_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.json"
    write_atomic(target, "é")
    assert target.read_bytes() == "é".encode()
    assert os.listdir(target.parent) == ["a.json"]


def test_old_file_survives_a_failure_and_nothing_is_left_behind(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_atomic(target, b"old")
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        partial.write_bytes(b"half of the ne")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write /proc/edgeseg/a.json"):
        write_atomic(Path("/proc/edgeseg/a.json"), b"x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        write_atomic(tmp_path / "folder", b"x")
    assert os.listdir(tmp_path) == ["folder"]


def test_suffix_is_kept_for_libraries_that_choose_the_format_by_it(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.mkv") as partial:
        assert partial.suffix == ".mkv"


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_hash_equals_hashlib_over_more_than_one_block(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_bad_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(UsageError, match="no such file"):
        require_file(tmp_path / "missing")
    with pytest.raises(UsageError, match="is a folder"):
        require_file(tmp_path)
    with pytest.raises(CorruptArtifact, match="is empty"):
        require_file(tmp_path / "empty")
    with pytest.raises(CorruptArtifact, match="at most 4 bytes, found 5"):
        read_capped(tmp_path / "large", limit=4)


def test_newest_goes_by_time_not_by_name(tmp_path: Path) -> None:
    for age, name in ((30, "z"), (10, "a"), (20, "m")):
        path = tmp_path / name / "model.onnx"
        write_atomic(path, b"x")
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    assert newest(tmp_path, ("*/model.onnx",)) == tmp_path / "a" / "model.onnx"
    assert newest(tmp_path, ("*/model.engine",)) is None


def special_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """What may lie in a file's place, and what must be said of it."""
    os.mkfifo(folder / "pipe")
    yield folder / "pipe", "is a pipe"
    yield Path("/dev/zero"), "is a device"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket"))
    server.close()
    yield folder / "socket", "is a socket"
    (folder / "dangling").symlink_to("nowhere")
    yield folder / "dangling", "leads nowhere"
    (folder / "loop").symlink_to("loop")
    yield folder / "loop", "leads in a circle"


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    for path, says in special_files(tmp_path):
        for read in (require_file, read_capped, sha256_file):
            with pytest.raises(CorruptArtifact, match=says) as caught:
                read(path)
            assert caught.value.hint
        assert not is_file(path)


def test_a_folder_is_named_and_its_descriptor_closed(tmp_path: Path) -> None:
    for read in (require_file, read_capped, sha256_file):
        with pytest.raises(UsageError, match="is a folder"):
            read(tmp_path)
    links = Path("/proc/self/fd").iterdir()
    # The descriptor of the listing itself is no link any more.
    assert tmp_path not in [link.readlink() for link in links if link.is_symlink()]


def test_names_that_no_disk_can_hold(tmp_path: Path) -> None:
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(UsageError, match="no file can have this name"):
            require_file(tmp_path / name)
        with pytest.raises(UsageError, match="no file can have this name"):
            read_capped(tmp_path / name)
        assert not is_file(tmp_path / name)


def test_links_are_followed_only_where_that_was_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    (tmp_path / "link").symlink_to("a")
    assert read_capped(tmp_path / "link") == b"data"
    assert is_file(tmp_path / "link")
    with (
        pytest.raises(UntrustedArtifact, match="symbolic link to a") as caught,
        open_file(tmp_path / "link", follow=False),
    ):
        pass
    assert str(tmp_path / "a") in (caught.value.hint or "")
    with open_file(tmp_path / "a", follow=False) as stream:
        assert stream.read() == b"data"
