"""Measure what threads that spin while they wait cost a training beside other work.

    python bench/spinning.py

Trains ``unet-lite`` of the demo for an epoch on the bundled nuclei with two threads, with GNU
OpenMP's default spin count and with that of ``edgeseg train``, alone and beside a program that
takes one core. Both cases of a round run one after the other, in turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import circumstances, write_json

from edgeseg.cli.openmp import SPINS
from edgeseg.data.folders import bundled_sample

OUT = Path(__file__).with_name("results") / "training" / "spinning.json"
ROUNDS = 2
NETWORK = ("--arch", "unet-lite", "--size", "256x256", "--stem-stride", "2", "--depth", "3")
RECIPE = ("--crop", "128x128", "--augment", "any", "--epochs", "1", "--threads", "2")
COUNTS = {"default": "300000", "edgeseg train": SPINS}
"""The default is that of libgomp with as many threads as cores."""
BUSY = "while True: pass"


def seconds(spins: str) -> float:
    """Seconds of an epoch, as the training reports them."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ("train", "--data", bundled_sample(), "--run", run, *NETWORK, *RECIPE, "--json")
        done = subprocess.run(
            ["env", f"GOMP_SPINCOUNT={spins}", sys.executable, "-m", "edgeseg", *map(str, command)],
            capture_output=True,
            check=True,
        )
    return float(json.loads(done.stdout)["seconds"])


def main() -> None:
    """Measure, print and write the medians."""
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(ROUNDS):
        for beside in ("alone", "beside a busy program"):
            other = None
            if beside != "alone":
                # In a session of its own, as from another terminal: Linux groups processes by it.
                line = [sys.executable, "-c", BUSY]
                other = subprocess.Popen(line, start_new_session=True)
            try:
                for name in list(COUNTS)[:: 1 if number % 2 else -1]:
                    found.setdefault(beside, {}).setdefault(name, []).append(seconds(COUNTS[name]))
            finally:
                if other is not None:
                    other.kill()
                    other.wait()
    document = {
        **circumstances(),
        "rounds": ROUNDS,
        "epoch_seconds": {
            beside: {name: statistics.median(values) for name, values in cases.items()}
            for beside, cases in found.items()
        },
        "all": found,
    }
    write_json(OUT, document)
    print(json.dumps(document["epoch_seconds"], indent=1))


if __name__ == "__main__":
    main()
