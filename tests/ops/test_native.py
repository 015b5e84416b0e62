"""Finding the extension: left out on request, absent without a word, broken with a warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.ops.native import kernels, native_available

LEVELS = [] if kernels is None else kernels.levels()
needs_native = pytest.mark.skipif(
    kernels is None, reason="edgeseg._native is not installed here or EDGESEG_NATIVE=0"
)


def ask(prelude: str, what: str = "native_available", **environment: str) -> tuple[str, str]:
    """Stdout and stderr of a fresh interpreter that says whether the kernels are in use."""
    code = (
        f"import os, sys; os.environ.update({environment!r}); {prelude}; "
        "import logging; logging.basicConfig(); "
        f"from edgeseg.ops.native import {what} as n; print(n())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip(), done.stderr


def test_environment_leaves_it_out() -> None:
    assert ask("pass", EDGESEG_NATIVE="0") == ("False", "")


@pytest.mark.skipif(not native_available(), reason="edgeseg._native is not installed here")
def test_it_is_used_where_installed() -> None:
    assert ask("pass", EDGESEG_NATIVE="1") == ("True", "")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('wrong ELF class')", "wrong ELF class"),
        ("REVISION = 1", "other sources"),
    ],
)
def test_an_extension_that_cannot_be_used_is_reported(
    source: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "_native.py").write_text(source)
    prelude = f"import edgeseg; edgeseg.__path__.insert(0, {str(tmp_path)!r}); "
    # Editable installs find the extension through a hook of their own, ahead of the path.
    prelude += "sys.meta_path[:] = [f for f in sys.meta_path if 'scikit' not in repr(f).lower()]"
    answer, warning = ask(prelude, EDGESEG_NATIVE="1")
    assert answer == "False"
    assert reason in warning


@needs_native
@pytest.mark.parametrize("level", LEVELS)
def test_environment_chooses_the_instructions(level: str) -> None:
    assert ask("pass", "simd_level", EDGESEG_SIMD=level) == (level, "")


@needs_native
def test_best_instructions_are_the_default() -> None:
    assert LEVELS[-1] in ("portable", "neon")
    assert ask("pass", "simd_level", EDGESEG_SIMD="") == (LEVELS[0], "")
    flags = Path("/proc/cpuinfo").read_text()
    assert ("avx2" in LEVELS) == (" avx2 " in flags)


@needs_native
def test_instructions_that_the_cpu_lacks_are_refused() -> None:
    assert kernels is not None
    with pytest.raises(ValueError, match="levels"):
        kernels.use("avx1024")
    code = (
        "from edgeseg.errors import UsageError\n"
        "try:\n    import edgeseg.ops\n"
        "except UsageError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "EDGESEG_SIMD": "avx1024"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    assert "avx1024" in done.stdout
    assert LEVELS[0] in done.stdout


def test_missing_opencv_is_one_sentence_with_a_mend() -> None:
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from edgeseg.errors import RuntimeMissing\n"
        "try:\n    import edgeseg.ops.preprocess\n"
        "except RuntimeMissing as error:\n    print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    message, _, hint = done.stdout.partition(" | ")
    assert "OpenCV" in message
    assert "edgeseg[cpu]" in hint
