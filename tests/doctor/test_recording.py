"""A machine on disk: nothing private in it, read back whole, judged elsewhere, shown readably."""

import getpass
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgeseg import doctor
from edgeseg.doctor import probe
from edgeseg.doctor.facts import Probed, SystemFacts, anonymous
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError

MACHINES = sorted((Path(__file__).parent / "machines").glob("*.json"))
SOURCE = str(Path(doctor.__file__).parents[2])


def test_a_record_names_neither_host_nor_user_nor_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home/alice.liddell"
    (home / "lib").mkdir(parents=True)
    (home / "lib/onnxruntime.py").write_text(
        "raise OSError('/home/alice.liddell/lib/x.so of alice.liddell@rabbit-hole failed')"
    )
    monkeypatch.setenv("HOME", "/home/alice.liddell")
    monkeypatch.setenv("LOGNAME", "alice.liddell")
    monkeypatch.setattr("platform.node", lambda: "rabbit-hole.example.org")
    monkeypatch.setenv("PYTHONPATH", f"{home / 'lib'}:{SOURCE}")
    assert getpass.getuser() == "alice.liddell"
    facts = probe.probe()
    assert "alice.liddell" in facts.library("onnxruntime").error
    doctor.record(facts, tmp_path / "machine.json")
    text = (tmp_path / "machine.json").read_text()
    assert not re.search("alice|liddell|rabbit|example", text)
    assert doctor.read(tmp_path / "machine.json").library("onnxruntime").error == (
        "OSError: ~/lib/x.so of ***@*** failed"
    )


def test_only_values_are_masked_and_only_whole_names() -> None:
    facts = SystemFacts(
        python="3.12.3",
        distributions={"numpy": "2.4.6"},
        libraries={"numpy": Probed(error="/root/numpy/numpython by numpy: /rooted, /home/a b/x")},
    )
    masked = anonymous(facts, ["numpy", "python"])
    assert masked.distributions == {"numpy": "2.4.6"}
    assert masked.library("numpy").error == "~/***/numpython by ***: /rooted, ~ b/x"


@pytest.mark.parametrize("path", MACHINES[::8], ids=lambda path: path.stem)
def test_a_machine_goes_to_disk_and_back(path: Path, tmp_path: Path) -> None:
    facts = doctor.read(path)
    doctor.record(facts, tmp_path / "again.json")
    assert doctor.read(tmp_path / "again.json") == facts
    findings = doctor.examine(facts)
    assert json.loads(json.dumps(findings.to_dict()))["healthy"] is findings.healthy


@pytest.mark.parametrize("path", MACHINES[::8], ids=lambda path: path.stem)
def test_the_text_says_all_that_has_to_be_done_and_wraps_no_command(path: Path) -> None:
    findings = doctor.examine(doctor.read(path))
    plain = doctor.render(findings)
    lines = plain.splitlines()
    for check in findings.checks:
        assert check.found in plain
        for command in (check.hint or "").splitlines():
            assert f"      {command}" in lines
    coloured = io.StringIO()
    doctor.show(findings, Console(file=coloured, force_terminal=True, width=40, highlight=False))
    assert "\x1b[" in coloured.getvalue()
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured.getvalue()).split() == plain.split()
    piped = io.StringIO()
    doctor.show(findings, Console(file=piped, width=40, highlight=False))
    assert piped.getvalue() == plain


def test_on_the_command_line_it_is_recorded_here_and_judged_there(
    edgeseg: Any, tmp_path: Path
) -> None:
    record = tmp_path / "machine.json"
    here = edgeseg("doctor", "--record", str(record), "--json")
    assert here.code == 0, here.err
    assert "recorded" in here.err
    there = edgeseg("doctor", "--machine", str(record), "--json")
    assert there.document == here.document
    thor = next(path for path in MACHINES if path.stem == "thor-jetpack7-venv")
    judged = edgeseg("doctor", "--machine", str(thor))
    assert judged.code == 0
    assert "It cannot run edgeseg yet" in judged.out
    both = edgeseg("doctor", "--machine", str(thor), "--record", str(record))
    assert both.code == UsageError.exit_code


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", CorruptArtifact),
        ("{}", CorruptArtifact),
        ('{"python": "3.12", "password": "x"}', CorruptArtifact),
        ('{"schema_version": 2, "python": "3.12"}', MismatchedArtifact),
    ],
)
def test_what_is_no_record_is_refused(text: str, error: type[Exception], tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(error, match="machine.json"):
        doctor.read(path)
    with pytest.raises(UsageError):
        doctor.read(tmp_path / "none.json")
