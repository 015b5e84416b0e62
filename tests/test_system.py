"""What the operating system refuses, and text that steers terminals: one sentence each."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.cli.output import finish
from edgeseg.cli.system import of_system
from edgeseg.console import log_to_stderr, stderr_console, visible
from edgeseg.errors import EdgesegError, UsageError

EDGESEG = (sys.executable, "-m", "edgeseg")
NO_UTF8 = os.fsdecode(b"n\xff")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A labelled picture in a folder whose name is no UTF-8, of a class that steers a terminal."""
    root = tmp_path / NO_UTF8
    for part in ("images", "masks"):
        folder = root / "train" / part
        folder.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
        shutil.move(tmp_path / "a.png", folder / "a\x1b]0;owned\x07.png")
    names = ["background", "red\x1b[31m\u202e\x9b1m\n×"]
    (root / "classes.json").write_text(json.dumps({"names": names}))
    return root


def sh(line: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which ``"$@"`` is an edgeseg command."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *EDGESEG, *map(os.fspath, arguments)],  # type: ignore[call-overload]  # os.fspath takes str
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | variables,
    )


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ('"$@" > /dev/full', 9, "error: the result cannot be written: No space left on device"),
        ('"$@" --json > /dev/full', 9, "No space left on device"),
        ('"$@" >&-', 3, ""),
        ('set -o pipefail; "$@" | true', 141, ""),
        ('"$@" --nonsense 2> /dev/full', 2, ""),
    ],
)
def test_where_the_result_cannot_be_written(line: str, code: int, says: str, data: Path) -> None:
    done = sh(line, "data", "check", data)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert says in done.stderr
    assert done.stderr.count("\n") <= 2


def test_a_closed_stdout_is_no_file_of_ours(data: Path, tmp_path: Path) -> None:
    """The next file opened would get its number, and a library's printf would end up in it."""
    done = sh('"$@" >&- 2>&-', "data", "check", data, "--sheet", tmp_path / "s.png")
    assert done.returncode == 3  # One picture makes no data set.
    assert cv2.imread(str(tmp_path / "s.png")) is not None


@pytest.mark.parametrize(
    "variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8"}]
)
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_names_of_any_bytes_in_any_locale(
    variables: dict[str, str], as_json: Sequence[str], data: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / f"sheet{NO_UTF8}.png"
    done = sh('"$@"', "data", "check", data, "--sheet", sheet, *as_json, **variables)
    assert done.returncode == 3, done.stderr  # One picture makes no data set.
    assert sheet.exists()
    if as_json:
        assert json.loads(done.stdout)["sheet"] == str(sheet)
    else:
        assert r"sheetn\xff.png" in done.stdout
        assert steering(done.stdout) == []
    assert steering(done.stderr) == []


def steering(text: str) -> list[str]:
    """Characters of Unicode's control, format and surrogate classes but newlines and joiners."""
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return [c for c in text if unicodedata.category(c) in kinds and c not in "\n\u200d\u200c"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\tc\x7f", r"a\rb\tc\x7f"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\u2066a\u2069\u200f", r"\u2066a\u2069\u200f"),
        ("a\nb", r"a\nb"),
        (NO_UTF8, r"n\xff"),
        ("é × 日本 \u0641\u200c\u0641 👩\u200d🔬", "é × 日本 \u0641\u200c\u0641 👩\u200d🔬"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_no_text_of_others_steers_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.table import Table

    evil = "a\x1b[2J\x9b1m\u202e\nerror: forged"
    monkeypatch.setattr(logging.getLogger("edgeseg"), "handlers", [])
    log_to_stderr()
    stderr_console.cache_clear()
    logging.getLogger("edgeseg.x").warning("\n%s and %r and %d", Path(evil), evil, 3)
    logging.getLogger("edgeseg.x").warning("the text itself: a\x1b[2J")
    assert not stderr_console.cache_info().currsize
    stderr_console()
    logging.getLogger("edgeseg.x").warning("\n%s and %r and %d", Path(evil), evil, 3)
    table = Table(evil, title=evil)
    table.add_row(evil)
    stderr_console().print(table)
    stderr_console().print(evil, markup=False)
    finish(False, {"name": evil, "list": [{"class": evil}], evil: 1})
    out, err = capsys.readouterr()
    assert steering(out + err) == []
    assert out.count("\n") == 4
    assert err.startswith("\n")  # that one was ours
    assert err.count("\n" r"a\x1b[2J\x9b1m\u202e\nerror: forged and ") == 2
    logging.getLogger("edgeseg").propagate = True


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MemoryError("Unable to allocate 9 TiB"), 1, "memory of this machine is used up"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "memory"),
        (cv2.error("OpenCV: (-4:Insufficient memory) Failed to allocate 9 bytes"), 1, "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, "memory"),
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), 9, "x.png: No space left"),
        (OSError(errno.EMFILE, "Too many open files"), 2, "Too many open files"),
    ],
)
def test_what_the_system_refuses(error: Exception, code: int, says: str) -> None:
    shown = of_system(error)
    assert isinstance(shown, EdgesegError)
    assert shown.exit_code == code
    assert says in shown.message
    assert shown.hint


def test_names_as_text_and_faults_of_ours_are_told_apart() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        NO_UTF8.encode()
    assert isinstance(of_system(caught.value), UsageError)
    assert of_system(ValueError("ours")) is None
    with pytest.raises(UnicodeEncodeError) as caught:
        "é".encode("ascii")
    assert of_system(caught.value) is None


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), BrokenPipeError()])
def test_at_the_top_of_the_command_line(
    error: BaseException, edgeseg: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from edgeseg import doctor

    def fails(_path: Path) -> None:
        raise error

    monkeypatch.setattr(doctor, "read", fails)
    done = edgeseg("doctor", "--machine", tmp_path / "x.json", "--json")
    assert "Traceback" not in done.err
    expected = {MemoryError: 1, KeyboardInterrupt: 130, BrokenPipeError: 141}
    assert done.code == expected[type(error)]
    if done.code == 1:
        assert done.document["error"]["hint"]
    else:
        assert (done.out, done.err) == ("", "")


FULL_DISK = (
    "export {run}/model.safetensors --out {disk}/model.onnx",
    "export {run}/model.onnx --triton {disk}/served",
    "calibrate {run}/model.onnx --from {data}/val/images --out {disk}/m.json",
    "build {disk}/run/model.onnx --fp16 --runtime onnxruntime",
    "train --data {data} --run {disk}/r --size 32x32 --epochs 1 --width 8 --depth 1",
)
ON_A_FULL_DISK = """
import contextlib, io, json, logging, os, subprocess, sys
from pathlib import Path
from edgeseg.cli import main

disk, run, *lines = sys.argv[1:]
fill = f"mkdir {disk}/run; cp {run}/model.onnx* {disk}/run; cat /dev/zero > {disk}/full"
for line in lines:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "edgeseg", disk]).returncode:
        sys.exit(99)
    subprocess.run(["bash", "-c", fill], stderr=subprocess.DEVNULL)
    before = set(Path(disk).rglob("*"))
    logging.getLogger("edgeseg").handlers.clear()
    sys.argv = ["edgeseg", *line.split(), "--json", "--overwrite"]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    more = sorted(str(path.relative_to(disk)) for path in set(Path(disk).rglob("*")) - before)
    print(json.dumps({"code": code, "document": json.loads(out.getvalue()), "more": more}))
    subprocess.run(["umount", "-l", disk], check=True)
"""


@pytest.mark.timeout(240)  # five commands, on a machine that may be busy
def test_a_full_disk_leaves_nothing_half_written(
    run_copy: Path, small_data: Path, tmp_path: Path
) -> None:
    """Each command on a new disk of two megabytes, all in one process that may mount it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    lines = [line.format(run=run_copy, disk=disk, data=small_data) for line in FULL_DISK]
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", ON_A_FULL_DISK, disk, run_copy, *lines],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("only root mounts a small disk of its own")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    ended = [json.loads(line) for line in done.stdout.splitlines()]
    for line, each in zip(FULL_DISK, ended, strict=True):
        assert each["code"] == 9, line
        error = each["document"]["error"]
        assert "No space left on device" in error["message"], line
        assert "room" in error["hint"], line
        assert each["more"] == [], line


def test_values_that_are_not_there_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    finish(False, {"lanes": {"engines": 2, "measured": None, "stages": {"p50": None}}, "no": None})
    assert capsys.readouterr().out == "lanes: engines 2\n"


def test_names_are_logged_without_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    stderr_console().print("b:x: no such file", markup=False)
    assert capsys.readouterr().err == "b:x: no such file\n"


IN_AN_IMPORT = """
import signal, time
from edgeseg.cli import _Interrupt
signal.signal(signal.SIGINT, _Interrupt())
try:
    import library
    print("imported", flush=True)
    while True:
        time.sleep(0.01)
except KeyboardInterrupt:
    raise SystemExit(1)
"""
SWALLOWS = """
import signal, time
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    pass
while {slow}:
    time.sleep(0.01)
"""


@pytest.mark.parametrize(("slow", "ends"), [(False, (1, "imported\n")), (True, (130, ""))])
def test_ctrl_c_while_a_library_loads(tmp_path: Path, slow: bool, ends: tuple[int, str]) -> None:
    """Compiled modules drop the interrupt, so it waits for the import, or ends a long one."""
    (tmp_path / "library.py").write_text(SWALLOWS.format(slow=slow))
    done = subprocess.run(
        [sys.executable, "-c", IN_AN_IMPORT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (*ends, "")


def test_ctrl_c_before_the_command_line_is_there(tmp_path: Path) -> None:
    """Dies of the signal, as programs do that do not handle it, and prints no traceback."""
    (tmp_path / "typer.py").write_text("import signal; signal.raise_signal(signal.SIGINT)")
    done = subprocess.run(
        [*EDGESEG, "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        # A shell ignores it for the commands that it runs in the background, with all they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
