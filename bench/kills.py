"""Kill a training run repeatedly and check that it still ends with the same weights.

python bench/kills.py [--kills N] [--seed N] [--out FILE.json]

Each start is ended by SIGKILL at a random moment after its first epoch; the last one runs to the
end. Its checkpoints
must be those of a training that was never interrupted, to the bit.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import circumstances, command_line, write_json
from safetensors.numpy import load_file

from edgeseg.data.folders import bundled_sample

COMMAND = (
    *(sys.executable, "-m", "edgeseg", "train", "--data", str(bundled_sample())),
    *("--width", "8", "--depth", "2", "--size", "64x64", "--epochs", "60", "--threads", "1"),
)


def main() -> None:
    """Train once in one go and once with kills, compare, and write what was seen."""
    parser = command_line(__doc__)
    parser.add_argument("--kills", type=int, default=16, help="number of kills (default 16)")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed for the times of the kills (default 0)"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = compare(Path(folder), options.kills, random.Random(options.seed))
    document = {**circumstances(), "seed": options.seed, **result}
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, document)
    if result["different"] or result["kills"] < options.kills:
        sys.exit(1)


def compare(folder: Path, kills: int, moments: random.Random) -> dict[str, object]:
    """Kills done, epochs kept after each of them, and the tensors that differ in the end."""
    whole, killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    subprocess.run([*COMMAND, "--run", str(whole)], check=True, capture_output=True)
    seconds = time.monotonic() - began
    done, kept = 0, []
    while done < kills:
        command = [*COMMAND, "--run", str(killed), "--resume"]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        ) as run:
            assert run.stderr is not None
            if not any(line.startswith("epoch") for line in run.stderr):
                break  # it came to its end
            try:
                run.wait(moments.uniform(0, seconds / kills / 3))
            except subprocess.TimeoutExpired:
                run.kill()
        done += 1
        kept.append(epochs(killed))
    subprocess.run([*COMMAND, "--run", str(killed), "--resume"], check=True, capture_output=True)
    return {"kills": done, "epochs_after_kills": kept, "different": differences(whole, killed)}


def epochs(run: Path) -> int:
    """How many epochs the state of a run holds, 0 where there is none."""
    from safetensors import safe_open

    state = run / "state.safetensors"
    if not state.exists():
        return 0
    with safe_open(state, "numpy") as opened:
        texts = (opened.metadata() or {}).values()
        found = [json.loads(text).get("history", ()) for text in texts if text.startswith("{")]
    return max(map(len, found), default=0)


def differences(one: Path, other: Path) -> list[str]:
    """Tensors of the checkpoints that are not equal to the bit."""
    found = []
    for name in ("model.safetensors", "last.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        found += [
            f"{name}: {key}"
            for key in sorted(first.keys() | second.keys())
            if key not in first
            or key not in second
            or first[key].tobytes() != second[key].tobytes()
        ]
    return found


if __name__ == "__main__":
    main()
