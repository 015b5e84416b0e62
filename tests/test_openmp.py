"""OpenMP's own report of how long its threads spin."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")


def settings(**environment: str) -> str:
    """What GNU OpenMP prints when a training loads it."""
    environment = {
        k: v for k, v in os.environ.items() if k[:4] not in ("OMP_", "GOMP")
    } | environment
    done = subprocess.run(
        [sys.executable, "-m", "edgeseg", "train", "--data", "nowhere"],
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this PyTorch is built with another OpenMP")
    return done.stderr


def test_threads_of_a_training_spin_briefly() -> None:
    assert "GOMP_SPINCOUNT = '1000'" in settings()


def test_what_the_user_set_stands() -> None:
    assert "GOMP_SPINCOUNT = '77'" in settings(GOMP_SPINCOUNT="77")
    chosen = settings(OMP_WAIT_POLICY="active")
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in chosen
    assert "GOMP_SPINCOUNT = '1000'" not in chosen
