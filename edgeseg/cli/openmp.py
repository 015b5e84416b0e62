"""How long the threads of a training on a CPU spin while they wait for each other."""

from __future__ import annotations

import os

SPINS = "1000"


def spin_briefly() -> None:
    """Let waiting threads of GNU OpenMP sleep sooner; call it before PyTorch is imported.

    By default they spin 300,000 times before they sleep (libgomp manual, GOMP_SPINCOUNT). Where
    another program takes a core, they spin while the thread that they wait for does not run, and
    a small network trained at less than a tenth of its speed: see ``bench/spinning.py``. What the
    user set in ``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY`` stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
