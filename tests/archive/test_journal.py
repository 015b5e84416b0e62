"""What is done and what of it still holds; what a death leaves behind."""

import os
from pathlib import Path

import pytest

from edgeseg.archive.journal import Journal, Labelled, Record, Tries, split
from edgeseg.archive.units import Unit
from edgeseg.errors import CorruptArtifact, UsageError


@pytest.fixture
def archive(tmp_path: Path) -> tuple[Unit, Record, Path]:
    """A picture, its record, and the output folder with its label map."""
    source, out = tmp_path / "a.png", tmp_path / "out"
    source.write_bytes(b"picture")
    (out / "sub").mkdir(parents=True)
    (out / "sub/a.labels.png").write_bytes(b"labels")
    result = Labelled(name="sub/a", frame=None, height=2, width=3, pixels=(4, 2), regions=(0, 1))
    record = Record(
        unit="sub/a",
        source=str(source),
        work="w",
        bytes=7,
        mtime_ns=source.stat().st_mtime_ns,
        sha256="0" * 64,
        results=(result,),
        worker="host-1-x",
        tries=1,
    )
    return Unit(name="sub/a", source=str(source)), record, out


def test_what_was_appended_is_read(archive: tuple[Unit, Record, Path]) -> None:
    _, record, out = archive
    journal = Journal(out)
    with journal.held():
        writer, other = journal.writer(), journal.writer()
        writer.append(record)
        other.append(record.model_copy(update={"unit": "b"}))
        writer.append(record.model_copy(update={"tries": 2}))
        assert journal.read() == {
            "b": record.model_copy(update={"unit": "b"}),
            "sub/a": record.model_copy(update={"tries": 2}),
        }


def test_a_line_cut_by_a_death_never_was(archive: tuple[Unit, Record, Path]) -> None:
    _, record, out = archive
    journal = Journal(out)
    with journal.held():
        journal.writer().append(record)
        journal.writer().append(record.model_copy(update={"unit": "b"}))
        (path,) = (one for one in journal.folder.glob("*.jsonl") if b'"b"' in one.read_bytes())
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert journal.read().keys() == {"sub/a"}
        path.write_bytes(whole)
        assert journal.read().keys() == {"sub/a", "b"}


def test_a_line_that_is_no_record_is_named(archive: tuple[Unit, Record, Path]) -> None:
    _, record, out = archive
    journal = Journal(out)
    with journal.held():
        journal.writer().append(record)
        (path,) = journal.folder.glob("*.jsonl")
        path.write_bytes(b'{"unit": 1}\n' + path.read_bytes())
        with pytest.raises(CorruptArtifact, match=rf"{path.name}:1: "):
            journal.read()


def test_what_holds_is_kept(archive: tuple[Unit, Record, Path]) -> None:
    unit, record, out = archive
    new = Unit(name="new", source=unit.source)
    pending, kept, reasons = split([unit, new], {"sub/a": record}, "w", out)
    assert kept == {"sub/a": record}
    assert [(each.unit, each.known) for each in pending] == [(new, None)]
    assert not reasons


@pytest.mark.parametrize(
    ("change", "reason", "known"),
    [
        (lambda source, out: source.write_bytes(b"another"), "another size or time", True),
        (lambda source, out: source.write_bytes(b"longer than before"), "another size", True),
        (lambda source, out: source.unlink(), "files that are gone", False),
        (lambda source, out: (out / "sub/a.labels.png").unlink(), "label maps that are", False),
    ],
)
def test_what_does_not_hold_is_done_again(
    archive: tuple[Unit, Record, Path], change: object, reason: str, known: bool
) -> None:
    unit, record, out = archive
    change(Path(unit.source), out)  # type: ignore[operator]
    if Path(unit.source).exists() and known:
        os.utime(unit.source, ns=(1, record.mtime_ns + 1))
    (pending,), kept, reasons = split([unit], {"sub/a": record}, "w", out)
    assert not kept
    assert (pending.known is not None) == known
    ((found, count),) = reasons.items()
    assert found.startswith(reason)
    assert count == 1


def test_another_engine_or_option(archive: tuple[Unit, Record, Path]) -> None:
    unit, record, out = archive
    (pending,), kept, reasons = split([unit], {"sub/a": record}, "other", out)
    assert pending.known is None
    assert not kept
    assert dict(reasons) == {"another engine or other options": 1}


def test_one_run_at_a_time(archive: tuple[Unit, Record, Path]) -> None:
    _, _, out = archive
    with Journal(out).held() as tries:
        assert tries.is_dir()
        with pytest.raises(UsageError, match="another run is writing to"), Journal(out).held():
            pass
        assert tries.is_dir()
    assert not tries.exists()
    with Journal(out).held():
        pass


def test_tries_are_counted_until_the_end(tmp_path: Path) -> None:
    tries = Tries(tmp_path, "a")
    assert [tries.begin(), Tries(tmp_path, "a").begin(), Tries(tmp_path, "b").begin()] == [1, 2, 1]
    tries.end()
    assert tries.begin() == 1
