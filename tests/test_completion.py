"""Completion in real shells: installed, asked, quick, and offering what the commands take."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from edgeseg.building.config import EngineRuntime
from edgeseg.cli.completing import VALUES
from edgeseg.cli.streaming import MODES
from edgeseg.engines.tensorrt.options import HardwareCompatibility
from edgeseg.precision.selection import SELECTS
from edgeseg.precision.thresholds import METHODS

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "cv2", "torch", "onnx", "onnxruntime", "rich", "edgeseg.building")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the command that an installation makes, and nothing else."""
    script = tmp_path / "bin/edgeseg"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom edgeseg.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return tmp_path


def run(home: Path, *command: str, **variables: str) -> str:
    """What a command prints, in that home."""
    path = f"{home / 'bin'}:/usr/bin:/bin"
    env = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    if "TMPDIR" in os.environ:
        env["TMPDIR"] = os.environ["TMPDIR"]
    done = subprocess.run(
        command, env=env | variables, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


BASH = """
source <(edgeseg --show-completion)
ask() {
  COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
  _edgeseg_completion edgeseg
  echo "${COMPREPLY[*]}"
}
complete -p edgeseg
ask edgeseg stre
ask edgeseg data ''
ask edgeseg build --runt
ask edgeseg build --runtime tensor
ask edgeseg train --data x --arch fcn
ask edgeseg stream --source clip
"""


def test_bash_completes_commands_options_and_values(home: Path) -> None:
    lines = run(home, "bash", "--norc", "-c", BASH).splitlines()
    assert lines[0] == "complete -o default -F _edgeseg_completion edgeseg"
    assert lines[1:] == [
        "stream",
        "check",
        "--runtime",
        "tensorrt tensorrt-rtx",
        "fcn32s fcn16s fcn8s",
        "",  # -o default: bash's own, which are files
    ]


def test_bash_has_it_after_installation(home: Path) -> None:
    run(home, "bash", "--norc", "-c", "edgeseg --install-completion; true")
    again = "source ~/.bashrc; complete -p edgeseg"
    assert "_edgeseg_completion edgeseg" in run(home, "bash", "--norc", "-c", again)


def test_fish_completes_and_has_it_after_installation(home: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("no fish")
    run(home, fish, "-c", "edgeseg --install-completion")
    asked = run(
        home, fish, "-c", 'complete -C "edgeseg stre"; complete -C "edgeseg build --runtime o"'
    )
    assert [line.split("\t")[0] for line in asked.splitlines()] == [
        "stream",
        "onnxruntime",
        "openvino",
    ]


ZSH = """
autoload -Uz compinit && compinit -u
source <(edgeseg --show-completion)
print -- $_comps[edgeseg]
words=(edgeseg build --runtime tens); CURRENT=4
_arguments() { print -- "$@" }
_edgeseg_completion
"""


def test_zsh_completes_and_has_it_after_installation(home: Path) -> None:
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("no zsh")
    lines = run(home, zsh, "-f", "-c", ZSH).splitlines()
    assert lines[0] == "_edgeseg_completion"
    assert '"tensorrt"' in lines[1]
    assert '"tensorrt-rtx"' in " ".join(lines)
    assert "onnxruntime" not in " ".join(lines)
    run(home, zsh, "-f", "-c", "edgeseg --install-completion; true")
    again = "ZSH_DISABLE_COMPFIX=true; source ~/.zshrc; print -- $_comps[edgeseg]"
    assert run(home, zsh, "-f", "-c", again).strip() == "_edgeseg"


def test_completing_loads_nothing_heavy(home: Path) -> None:
    spy = home / "sitecustomize.py"
    spy.write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: print(sorted(set({HEAVY!r}) & set(sys.modules))))\n"
    )
    told = run(
        home,
        "edgeseg",
        PYTHONPATH=f"{home}:{ROOT}",
        _EDGESEG_COMPLETE="complete_bash",
        COMP_WORDS="edgeseg build --runtime open",
        COMP_CWORD="3",
    )
    assert told.splitlines() == ["openvino", "[]"]


NAMED = {
    "get_args(EngineRuntime)": get_args(EngineRuntime),
    "get_args(HardwareCompatibility)": get_args(HardwareCompatibility),
    "SELECTS": SELECTS,
    "METHODS": METHODS,
    "MODES": MODES,
}


def choices() -> dict[tuple[str, str], tuple[str, ...]]:
    """Command and parameter → words that ``one_of`` lets through, as the sources say."""
    found = {}
    for file in (ROOT / "edgeseg/cli").glob("*.py"):
        for function in ast.parse(file.read_text()).body:
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "one_of":
                    option, _, allowed = map(ast.unparse, call.args)
                    parameter = ast.literal_eval(option)[2:].replace("-", "_")
                    words = NAMED[allowed] if allowed in NAMED else ast.literal_eval(allowed)
                    found[function.name.rstrip("_"), parameter] = tuple(words)
    return found


def test_what_is_offered_is_what_is_taken() -> None:
    known = choices()
    assert len(known) >= 15
    for (command, parameter), words in known.items():
        assert sorted(VALUES[command][parameter]) == sorted(words), (command, parameter)
