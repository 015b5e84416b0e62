"""Finding the extension: left out on request, absent without a word, broken with a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.ops import native_available

ASK = "import logging; logging.basicConfig(); from edgeseg.ops import native_available as n; "


def ask(prelude: str, **environment: str) -> tuple[str, str]:
    """Stdout and stderr of a fresh interpreter that says whether the kernels are in use."""
    code = f"import os, sys; os.environ.update({environment!r}); {prelude}; {ASK} print(n())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip(), done.stderr


def test_environment_leaves_it_out() -> None:
    assert ask("pass", EDGESEG_NATIVE="0") == ("False", "")


@pytest.mark.skipif(not native_available(), reason="edgeseg._native is not installed here")
def test_it_is_used_where_installed() -> None:
    assert ask("pass", EDGESEG_NATIVE="1") == ("True", "")


def test_absent_extension_goes_unmentioned() -> None:
    assert ask("sys.modules['edgeseg._native'] = None") == ("False", "")


def test_broken_extension_is_reported(tmp_path: Path) -> None:
    (tmp_path / "_native.py").write_text("raise ImportError('wrong ELF class')")
    prelude = f"import edgeseg; edgeseg.__path__.insert(0, {str(tmp_path)!r}); "
    # Editable installs find the extension through a hook of their own, ahead of the path.
    prelude += "sys.meta_path[:] = [f for f in sys.meta_path if 'scikit' not in repr(f).lower()]"
    answer, warning = ask(prelude, EDGESEG_NATIVE="1")
    assert answer == "False"
    assert "wrong ELF class" in warning


def test_missing_opencv_is_one_sentence_with_a_mend() -> None:
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from edgeseg.errors import RuntimeMissing\n"
        "try:\n    import edgeseg.ops.preprocess\n"
        "except RuntimeMissing as error:\n    print(error.message, '|', error.mend)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    message, _, mend = done.stdout.partition(" | ")
    assert "OpenCV" in message
    assert "edgeseg[cpu]" in mend
