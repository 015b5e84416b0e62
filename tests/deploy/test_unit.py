"""The systemd unit: systemd's own checks, and streams under the restrictions it imposes."""

import ctypes.util
import json
import netrc
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cameras import MjpegCamera
from graphs import onnx_network

from edgeseg.errors import ArtifactError, OutputError, RuntimeMissing, UsageError
from edgeseg.options.parsing import byte_size

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
UNIT = DEPLOY / "edgeseg-stream@.service"
EXPOSURE = 20  # tenths; 0 is a service without any right, 100 one with all

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (apt install systemd)"
)


def settings(name: str, text: str | None = None) -> list[str]:
    """All values of a setting of the unit, lines that go on put together."""
    whole = (UNIT.read_text() if text is None else text).replace("\\\n", " ")
    return re.findall(rf"^{name}=(.*)$", whole, re.M)


def systemd(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
    )  # fmt: skip


def planted(tmp_path: Path, before: str = "", after: str = "") -> Path:
    """A copy of the unit whose program is there, with one piece of text replaced."""
    text = UNIT.read_text().replace("/opt/edgeseg/bin/edgeseg", sys.executable)
    assert before in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace(before, after) if before else text)
    return path


@analyze
def test_systemd_finds_no_fault_with_the_unit(tmp_path: Path) -> None:
    checked = systemd("verify", planted(tmp_path))
    assert (checked.returncode, checked.stderr) == (0, "")


@analyze
def test_systemd_finds_no_fault_with_what_a_jetson_adds(tmp_path: Path) -> None:
    path = planted(tmp_path)
    drop_in = tmp_path / f"{UNIT.name}.d" / "jetson.conf"
    drop_in.parent.mkdir()
    shutil.copy(DEPLOY / "jetson.conf", drop_in)
    checked = systemd("verify", path)
    assert (checked.returncode, checked.stderr) == (0, "")
    drop_in.write_text(drop_in.read_text().replace("BindPaths", "BindPath"))
    assert "jetson.conf" in systemd("verify", path).stderr


@analyze
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("WatchdogSec=30", "WatchDogSec=30"),
        ("Type=notify", "Type=notified"),
        ("SystemCallFilter=@system-service", "SystemCallFilter=@system-services"),
        ("SetCredential=cameras:#none", "SetCredential=cameras:"),
    ],
)
def test_systemd_finds_what_is_planted(before: str, after: str, tmp_path: Path) -> None:
    assert systemd("verify", planted(tmp_path, before, after)).stderr


@analyze
def test_the_service_is_exposed_no_more_than_it_must_be(tmp_path: Path) -> None:
    arguments = ("security", "--offline=true", f"--threshold={EXPOSURE}")
    checked = systemd(*arguments, planted(tmp_path))
    assert checked.returncode == 0, checked.stdout
    weaker = systemd(*arguments, planted(tmp_path, "CapabilityBoundingSet=\n"))
    assert weaker.returncode != 0


def test_the_command_line_of_the_unit_is_one(edgeseg: Any, tmp_path: Path) -> None:
    (command,) = settings("ExecStart")
    program, *arguments = shlex.split(command.replace("%i", "front"))
    assert program.endswith("/edgeseg")
    arguments[arguments.index("/etc/edgeseg/front.toml")] = str(DEPLOY / "front.toml")
    outcome = edgeseg(*arguments, "--write-config", tmp_path / "all.toml")
    assert outcome.code == 0, outcome.err
    written = (tmp_path / "all.toml").read_text()
    assert "keep-trying = true\n" in written
    assert 'record = "/var/lib/edgeseg/front/drive.mkv"\n' in written
    assert (DEPLOY / "front.toml").stat().st_mode & 0o044  # it holds no secret


def test_what_no_restart_mends_is_not_restarted() -> None:
    (codes,) = settings("RestartPreventExitStatus")
    kinds = (UsageError, ArtifactError, RuntimeMissing)
    assert set(map(int, codes.split())) == {kind.exit_code for kind in kinds}
    assert OutputError.exit_code not in map(int, codes.split()), "a port is free again some time"
    # A stream that a SIGHUP ended cleanly would else stay down.
    assert settings("Restart") == ["always"]


def test_the_shipped_stream_keeps_to_a_card_of_four_gigabytes(edgeseg: Any, tmp_path: Path) -> None:
    outcome = edgeseg(
        "stream", "--config", DEPLOY / "front.toml", "--write-config", tmp_path / "all.toml"
    )
    assert outcome.code == 0, outcome.err
    given = re.findall(r'^(keep-bytes|rotate) = "(.*)"$', (tmp_path / "all.toml").read_text(), re.M)
    sizes = {name: byte_size(text) for name, text in given}
    assert sizes["keep-bytes"] + sizes["rotate"] < 4e9 * 0.75
    assert sizes["rotate"] * 4 < sizes["keep-bytes"]


def test_without_passwords_the_credential_is_an_empty_netrc(tmp_path: Path) -> None:
    (given,) = settings("SetCredential")
    name, _, content = given.partition(":")
    assert settings("LoadCredential") == [f"{name}:/etc/edgeseg/%i.netrc"]
    assert f"${{CREDENTIALS_DIRECTORY}}/{name}" in settings("ExecStart")[0]
    (tmp_path / name).write_text(content)
    assert netrc.netrc(str(tmp_path / name)).hosts == {}


def filter_of_the_unit() -> set[str]:
    """The system calls that ``SystemCallFilter=`` leaves, by the sets of this systemd."""
    listed: dict[str, list[str]] = {}
    current: list[str] = []
    for line in systemd("syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            current = listed.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.lstrip().startswith("#"):
            current.append(line.strip())

    def calls(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return {call for each in listed[name] for call in calls(each)}

    left: set[str] = set()
    for value in settings("SystemCallFilter"):
        several = {call for name in value.lstrip("~").split() for call in calls(name)}
        left = left - several if value.startswith("~") else left | several
    # systemd adds these to any allow list (systemd.exec(5), @default).
    return left | calls("@default")


@pytest.fixture
def confined(tmp_path: Path) -> list[str]:
    """The beginning of a command line that runs the rest as the unit lets it."""
    if shutil.which("systemd-analyze") is None or ctypes.util.find_library("seccomp") is None:
        pytest.skip("needs systemd-analyze and libseccomp (apt install systemd)")
    (families,) = settings("RestrictAddressFamilies")
    numbers = [int(getattr(socket, name)) for name in families.split()]
    rules = {"calls": sorted(filter_of_the_unit()), "families": numbers}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    sandbox = str(Path(__file__).with_name("sandbox.py"))
    return [sys.executable, sandbox, str(tmp_path / "rules.json"), sys.executable]


def run(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, timeout=100,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
    )  # fmt: skip


PROBE = """
import ctypes, socket
refused = [ctypes.CDLL(None).ptrace(0, 0, 0, 0) == -1]  # PTRACE_TRACEME, which all may do
for family in (socket.AF_NETLINK, socket.AF_INET):
    try:
        socket.socket(family, socket.SOCK_DGRAM)
        refused.append(False)
    except PermissionError:
        refused.append(True)
print(refused)
"""


def test_the_restrictions_restrict(confined: list[str]) -> None:
    assert run([sys.executable, "-c", PROBE]).stdout == "[False, False, False]\n"
    assert run([*confined, "-c", PROBE]).stdout == "[True, True, False]\n"


def test_a_service_streams_under_the_restrictions(
    confined: list[str], run_copy: Path, tmp_path: Path
) -> None:
    record, lines = tmp_path / "a.mkv", tmp_path / "a.jsonl"
    with MjpegCamera() as camera:
        command = [
            *confined, "-m", "edgeseg", "stream", str(run_copy / "model.int8.onnx"),
            "--source", camera.url.replace("127.0.0.1", "localhost"), "--no-window",
            "--keep-trying", "--record", str(record), "--json-lines", str(lines), "--web", "0",
            "--metrics", "0", "--max-frames", "20", "--json",
        ]  # fmt: skip
        streamed = run(command)
    assert streamed.returncode == 0, streamed.stderr
    assert json.loads(streamed.stdout)["frames"] == 20
    assert " failed " not in streamed.stderr
    assert lines.read_text().count('{"frame"') == 20
    assert record.stat().st_size > 0


INFERENCE = {
    "onnxruntime": "import onnxruntime as r; s = r.InferenceSession(path, "
    "providers=['CPUExecutionProvider']); print(s.run(None, {'x': x})[0].shape)",
    "openvino": "import openvino as r; print(r.Core().compile_model(path, 'CPU')(x)[0].shape)",
}

REFUSE_W_AND_X = """
import ctypes, sys
import numpy as np
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
    sys.exit(77)
path, x = sys.argv[1], np.ones((1, 3, 16, 16), np.float32)
"""


@pytest.mark.parametrize(("runtime", "runs"), [("onnxruntime", True), ("openvino", False)])
def test_which_runtimes_bear_memory_deny_write_execute(
    runtime: str, runs: bool, tmp_path: Path
) -> None:
    """What docs/deploying.md says of ``MemoryDenyWriteExecute=``, shown by the kernel's own."""
    pytest.importorskip(runtime)
    model = onnx_network(
        "float[1,3,16,16] x",
        "float[1,4,14,14] y",
        "y = Conv (x, w)",
        opset=17,
        w=np.ones((4, 3, 3, 3), np.float32),
    )
    onnx.save(model, tmp_path / "conv.onnx")
    network = str(tmp_path / "conv.onnx")
    child = run([sys.executable, "-c", REFUSE_W_AND_X + INFERENCE[runtime], network])
    if child.returncode == 77:
        pytest.skip("this kernel is older than 6.3: no PR_SET_MDWE")
    assert (child.returncode == 0) is runs, child.stderr
    assert ("(1, 4, 14, 14)" in child.stdout) is runs
