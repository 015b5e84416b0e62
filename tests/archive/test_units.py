"""What there is to do in an archive, and where its results go."""

from pathlib import Path

import pytest
from archive_cases import make_video

from edgeseg.archive.units import FRAMES, find_units
from edgeseg.errors import UsageError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def names(*paths: object, out: Path = Path("/nowhere")) -> list[str]:
    return [unit.name for unit in find_units([*map(str, paths)], out)]


def test_a_folder_with_all_below_it(tmp_path: Path) -> None:
    touch(tmp_path, "b.PNG", "a/x.jpg", "a/c/x.tif", "a/notes.md", ".hidden/y.png", "a/.z.png")
    assert names(tmp_path) == ["a/c/x", "a/x", "b"]
    assert names(tmp_path / "a", tmp_path / "b.PNG") == ["b", "c/x", "x"]


def test_globs_keep_what_follows_their_fixed_part(tmp_path: Path) -> None:
    touch(tmp_path, "cam1/a.png", "cam1/deep/b.png", "cam2/a.png", "cam2/a.txt")
    assert names(tmp_path / "*/a.*") == ["cam1/a", "cam2/a"]
    assert names(tmp_path / "cam1/**/*.png") == ["a", "deep/b"]


def test_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "cam1/a.png", "far/b.png"))
    Path("list.txt").write_text(f"cam1/a.png\n\n{tmp_path}/far/b.png\n")
    assert names("list.txt") == ["cam1/a", f"{str(tmp_path)[1:]}/far/b"]
    Path("list.txt").write_text("cam1/a.png\ncam1/none.png\n")
    with pytest.raises(UsageError, match=r"list\.txt:2: cam1/none\.png: no such file"):
        names("list.txt")
    Path("list.txt").write_text("../x.png\n")
    touch(tmp_path.parent, "x.png")
    with pytest.raises(UsageError, match="outside of the output folder"):
        names("list.txt")


def test_results_are_no_pictures_of_the_archive(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/a.labels.png", "outside/b.png")
    assert names(tmp_path, out=tmp_path / "out") == ["a", "outside/b"]


@pytest.mark.parametrize(
    ("files", "paths", "reason"),
    [
        (("a.png", "a.jpg"), ("",), "would be written to the same file"),
        (("one/a.png", "two/a.png"), ("one", "two"), "would be written to the same file"),
        (("a.txt.gz",), ("",), "no pictures and no videos"),
        ((), ("none",), "no such file or folder"),
    ],
)
def test_refused(
    tmp_path: Path, files: tuple[str, ...], paths: tuple[str, ...], reason: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(UsageError, match=reason):
        names(*(tmp_path / path for path in paths))


def test_the_same_file_twice_is_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    assert names(tmp_path, tmp_path / "a.png") == ["a"]


@pytest.mark.parametrize("every", [1, 3])
def test_a_video_is_ranges_without_gap_the_last_one_open(tmp_path: Path, every: int) -> None:
    make_video(tmp_path / "v.mp4", 2 * FRAMES * every + 7)
    units = find_units([str(tmp_path)], Path("/nowhere"), every)
    assert {unit.name for unit in units} == {"v.mp4"}
    bounds = [(unit.first, unit.last) for unit in units]
    span = FRAMES * every
    assert bounds == [(0, span), (span, 2 * span), (2 * span, None)]
    assert len({unit.key for unit in units}) == 3
