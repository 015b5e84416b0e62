import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeseg.artifacts import sidecar
from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.files import sha256_bytes, write_atomic
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UntrustedArtifact


def verify_optional(path: Path) -> object:
    return sidecar.verify(path, required=False)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path, data = tmp_path / "model.fp16.engine", os.urandom(4096)
    write_atomic(path, data)
    card = ModelCard.model_validate(
        {
            "name": "n",
            "arch": "unet-lite",
            "classes": {"names": ["a", "b"]},
            "input": {"height": 64, "width": 64},
        }
    )
    sidecar.SideCar(
        artifact_sha256=sha256_bytes(data),
        card=card,
        runtime="tensorrt-rtx",
        runtime_version="1.7.1",
    ).save(sidecar.sidecar_path(path))
    return path


@pytest.mark.parametrize("place", [0, 2048, 4095])
def test_one_flipped_bit_is_found(artifact: Path, place: int) -> None:
    data = bytearray(artifact.read_bytes())
    data[place] ^= 1
    artifact.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="changed since it was made"):
        sidecar.verify(artifact, required=True)


def test_no_side_car_is_refused_only_where_one_is_required(artifact: Path) -> None:
    sidecar.sidecar_path(artifact).unlink()
    assert sidecar.verify(artifact, required=False) is None
    with pytest.raises(UntrustedArtifact, match="no side-car") as caught:
        sidecar.verify(artifact, required=True)
    assert "edgeseg build" in (caught.value.hint or "")


def test_damaged_or_foreign_side_car(artifact: Path) -> None:
    path = sidecar.sidecar_path(artifact)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(CorruptArtifact, match="not valid JSON"):
        sidecar.verify(artifact, required=True)
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 7', 1))
    with pytest.raises(MismatchedArtifact, match="schema version 7"):
        sidecar.verify(artifact, required=True)


def test_bytes_come_with_the_side_car_that_vouches_for_them(artifact: Path) -> None:
    data, found = sidecar.verified_bytes(artifact)
    assert data == artifact.read_bytes()
    assert found == sidecar.read(artifact)


@pytest.mark.parametrize("linked", ["artifact", "side-car"])
def test_native_code_is_not_reached_through_links(artifact: Path, linked: str) -> None:
    path = artifact if linked == "artifact" else sidecar.sidecar_path(artifact)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    with pytest.raises(UntrustedArtifact, match="symbolic link to elsewhere"):
        sidecar.verified_bytes(artifact)


def part_of(artifact: Path, who: str) -> Path:
    """What native code is altered by."""
    return {
        "artifact": artifact,
        "side-car": sidecar.sidecar_path(artifact),
        "folder": artifact.parent,
    }[who]


@pytest.mark.parametrize("who", ["artifact", "side-car", "folder"])
def test_native_code_that_everyone_may_write_is_refused(artifact: Path, who: str) -> None:
    path = part_of(artifact, who)
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(UntrustedArtifact, match="writable by every user") as caught:
        sidecar.verified_bytes(artifact)
    assert f"chmod o-w {path}" in (caught.value.hint or "")
    path.chmod(path.stat().st_mode & ~0o002)
    sidecar.verified_bytes(artifact)


@pytest.mark.parametrize("who", ["artifact", "side-car", "folder"])
def test_native_code_of_another_user_is_refused(artifact: Path, who: str) -> None:
    path = part_of(artifact, who)
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, 65534, -1)
    with pytest.raises(UntrustedArtifact, match="belongs to the user") as caught:
        sidecar.verified_bytes(artifact)
    assert f"chown {os.geteuid()} {path}" in (caught.value.hint or "")


@pytest.mark.parametrize("who", ["artifact", "side-car", "folder"])
def test_native_code_that_a_group_of_several_may_write_is_refused(
    artifact: Path, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = part_of(artifact, who)
    path.chmod(path.stat().st_mode | 0o020)
    group = grp.getgrgid(path.stat().st_gid)
    # One member is the user; the machine's own list of members is all that is replaced here.
    several = grp.struct_group((group.gr_name, "x", group.gr_gid, ["somebody-else"]))
    monkeypatch.setattr(grp, "getgrgid", lambda _number: several)
    with pytest.raises(UntrustedArtifact, match=f"writable by the group {group.gr_name}") as caught:
        sidecar.verified_bytes(artifact)
    assert f"chmod g-w {path}" in (caught.value.hint or "")
    path.chmod(path.stat().st_mode & ~0o020)
    sidecar.verified_bytes(artifact)


def test_a_group_of_one_is_that_user(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a umask of 002 gives where each user has a group of their own."""
    artifact.chmod(0o664)
    me = pwd.getpwuid(os.geteuid())
    alone = grp.struct_group((me.pw_name, "x", artifact.stat().st_gid, []))
    monkeypatch.setattr(grp, "getgrgid", lambda _number: alone)
    mine = pwd.struct_passwd((*me[:3], artifact.stat().st_gid, *me[4:]))
    monkeypatch.setattr(pwd, "getpwall", lambda: [mine])
    sidecar.verified_bytes(artifact)
    other = pwd.struct_passwd(("other", *mine[1:]))
    monkeypatch.setattr(pwd, "getpwall", lambda: [mine, other])
    with pytest.raises(UntrustedArtifact, match="writable by the group"):
        sidecar.verified_bytes(artifact)


def test_a_folder_with_the_sticky_bit_is_no_danger(artifact: Path) -> None:
    artifact.parent.chmod(0o1777)
    sidecar.verified_bytes(artifact)


def test_a_link_to_data_is_followed_where_its_side_car_vouches(
    artifact: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    link = run / "model.onnx"
    link.symlink_to(artifact)
    with pytest.raises(UntrustedArtifact, match="symbolic link") as caught:
        sidecar.verify(link, required=False)
    assert str(artifact) in (caught.value.hint or "")
    sidecar.sidecar_path(link).symlink_to(sidecar.sidecar_path(artifact))
    assert sidecar.verify(link, required=False) == sidecar.read(artifact)
    artifact.write_bytes(b"other bytes")
    with pytest.raises(CorruptArtifact, match="changed since it was made"):
        sidecar.verify(link, required=False)


@pytest.mark.parametrize("read", [sidecar.verified_bytes, verify_optional])
def test_a_file_of_another_size_is_refused_unread(
    read: Callable[[Path], object], artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sidecar.read(artifact)
    assert made is not None
    made.model_copy(update={"artifact_bytes": 4096}).save(sidecar.sidecar_path(artifact))
    read(artifact)
    os.truncate(artifact, 2 * 1024**3)  # holes: it takes no room on the disk
    for name in ("sha256_bytes", "sha256_file"):
        monkeypatch.setattr(sidecar, name, lambda _: pytest.fail("hashed"))
    with pytest.raises(CorruptArtifact, match="the side-car says 4096"):
        read(artifact)
