"""Take networks of other libraries through every command, from import to camera.

    python bench/imports/imports.py [NAME…] [--python ENVIRONMENT/bin/python] [--work runs/imports]

Makes an environment for the other libraries (``requirements.txt``, 6 GB with PyTorch's wheels from
PyPI) unless ``--python`` names one, exports the networks there (``networks.py``, seeded), and runs
edgeseg's commands on each as a user would. A cell of the table is what the command measured, or
a footnote with what it said. Finished cells are kept in ``results/imports/NAME.json`` and not run
again; ``--table`` only writes the table.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeseg import machine
from edgeseg.artifacts.files import write_atomic
from edgeseg.data.folders import bundled_sample

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "imports"
NAMES = (
    "smp-unet-mobilenetv3",
    "smp-deeplabv3plus-resnet18",
    "torchvision-lraspp",
    "torchvision-deeplabv3-aux",
    "transformers-segformer-b0",
    "nhwc-unet",
    "mmdeploy-lraspp",
)
TRAINED = ("smp-unet-mobilenetv3", "torchvision-lraspp", "smp-deeplabv3plus-resnet18")
METHODS = dict.fromkeys(("smp-unet-mobilenetv3", "torchvision-lraspp"), "entropy")
"""Range estimation where INT8 with the default, minmax, loses more than the gate allows."""
RUNTIMES = ("onnxruntime", "openvino", "tensorrt-rtx")
LIMIT_S = 1800
REFUSED, PROPOSALS = 7, 4
"""Exit code of a refused build, and how many of its proposals are followed one after the other."""


def main() -> None:
    """Export, run all cells that are not there yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--python", type=Path, help="interpreter of an environment that is there")
    parser.add_argument("--work", type=Path, default=Path("runs/imports"))
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if not options.table:
        export(options)
        for name in options.names:
            measure(name, options.work.resolve())
    write_atomic(RESULTS / "README.md", table())


def export(options: argparse.Namespace) -> None:
    """Export the networks that are not there yet, in the environment of their libraries."""
    missing = [n for n in options.names if not (options.work / n / f"{n}.onnx").exists()]
    if not missing:
        return
    python = options.python
    if python is None:
        home = options.work / "environment"
        venv.create(home, with_pip=True)
        python = home / "bin" / "python"
        install = [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"]
        subprocess.run(install, check=True)
    data = ["--data", str(bundled_sample())]
    subprocess.run([python, HERE / "networks.py", options.work, *missing, *data], check=True)


def cells(name: str, work: Path) -> Iterator[tuple[str, list[str]]]:
    """Each cell's name and command; later ones read what earlier ones wrote."""
    run, data = str(work / name / "run"), str(bundled_sample())
    pictures = str(bundled_sample() / "val" / "images")
    known = [] if name.startswith("transformers") else ["--classes", "background,nucleus"]
    network = str(work / name / f"{name}.onnx")
    yield "import", ["import", network, *known, "--run", run, "--data", data, "--split", "train"]
    yield "eval", ["eval", run, "--data", data]
    train = str(bundled_sample() / "train" / "images")
    method = ["--method", METHODS[name]] if name in METHODS else []
    manifest = ["--out", str(work / name / "calib" / "manifest.json")]
    yield "calibrate", ["calibrate", run, "--from", train, "--count", "32", *manifest, *method]
    for precision in ("fp16", "int8"):
        for runtime in RUNTIMES:
            build = ["build", run, f"--{precision}", "--runtime", runtime, "--data", data]
            yield f"{precision} {runtime}", build
    yield "sensitivity", ["sensitivity", run, "--data", data, "--pictures", "2"]
    yield "tiles", ["infer", run, pictures, "--tiles", "--out", str(work / name / "tiles")]
    yield "stream", ["stream", run, "--source", f"{pictures}/*.png", "--no-window"]
    yield "bench", ["bench", run, "--seconds", "1"]


def measure(name: str, work: Path) -> None:
    """Run the cells of a network that have no result yet."""
    kept = RESULTS / f"{name}.json"
    rows: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    rows["machine"] = here()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for cell, command in cells(name, work):
        if cell in rows:
            continue
        rows[cell] = followed(command, work)
        print(name, cell, json.dumps(rows[cell])[:200], file=sys.stderr, flush=True)
        write_atomic(kept, json.dumps(rows, indent=1) + "\n")


def here() -> str:
    """The processor, and what it has for INT8."""
    found = machine.describe()
    return f"{found.cores} cores of {found.cpu} ({', '.join(found.cpu_flags)})"


def followed(command: list[str], work: Path) -> dict[str, Any]:
    """Run a command, and what the gate proposes where it refuses a build."""
    row = outcome(command, work)
    for _ in range(PROPOSALS):
        if row["code"] != REFUSED:
            break
        row = outcome(shlex.split(row["hint"].split("`")[1])[1:], work)
    row.pop("hint", None)
    return row


def outcome(command: list[str], work: Path) -> dict[str, Any]:
    """Run a command; what the table shows of its document, or its error."""
    began = time.monotonic()
    words = [sys.executable, "-m", "edgeseg", *command, "--json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"code": None, "message": f"not finished after {LIMIT_S} s"}
    seconds = round(time.monotonic() - began, 1)
    try:
        document = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or ["no output"]
        return {"code": done.returncode, "message": lines[-1], "seconds": seconds}
    if "error" in document:
        message = document["error"]["message"].replace(str(work), "WORK")
        hint = document["error"]["hint"]
        return {"code": done.returncode, "message": message, "hint": hint, "seconds": seconds}
    asked = {"keep": command.count("--keep")} if "--keep" in command else {}
    return {"code": done.returncode, **shown(command[0], document), **asked, "seconds": seconds}


def shown(command: str, document: dict[str, Any]) -> dict[str, Any]:
    """The figures of a document that belong into the table."""
    if command == "import":
        keys = ("output", "preprocessing", "proof")
        return {key: document[key] for key in keys}
    if command == "eval":
        return {"mean_iou": document["mean_iou"]}
    if command == "build":
        return {key: document[key] for key in ("gate", "low_precision_share", "kept")}
    if command == "bench":
        return {"runs": len(document["runs"])}
    if command == "stream":
        return {"frames": document["frames"]}
    return {"pictures": len(document.get("pictures") or ())} if command == "infer" else {}


def text_of(cell: str, row: dict[str, Any], notes: list[str]) -> str:
    """The text of a cell; errors become footnotes."""
    if row["code"] != 0:
        message = row["message"].splitlines()[0]
        if message not in notes:
            notes.append(message)
        return f"no ({notes.index(message) + 1})"
    if cell == "eval":
        return f"{row['mean_iou']:.3f}"
    gate = row.get("gate")
    if gate is None:
        return "yes"
    if gate["metric"] != "mean_iou":
        return "yes"
    worst = gate["worst_class"]
    low, high = (100 * end for end in worst["interval"])
    kept = f"; {row['keep']} kept" if "keep" in row else ""
    return (
        f"{100 * gate['drop']:+.2f}; {worst['name']} {100 * worst['drop']:+.2f} "
        f"({low:+.2f}…{high:+.2f}){kept}"
    )


def table() -> str:
    """The page: a row for each network, and what commands said that refused."""
    found = {name: json.loads(path.read_text()) for name in NAMES
             if (path := RESULTS / f"{name}.json").exists()}  # fmt: skip
    machines = {rows["machine"] for rows in found.values()}
    columns = [cell for cell, _ in cells(NAMES[0], Path())]
    notes: list[str] = []
    lines = [
        "# Networks of other libraries",
        "",
        "Written by `bench/imports/imports.py`. `eval` is the mean IoU on the bundled nuclei; "
        "builds show the loss of mean IoU compared with FP32, in points, and that of the class "
        "that lost most with its 95 % interval (paired bootstrap over the pictures). All but "
        f"{', '.join(f'`{name}`' for name in TRAINED)} have random weights, so their mean IoU "
        "means nothing. "
        + " ".join(
            f"`{n}` is calibrated with `--method {m}`, as the gate refused INT8 with minmax."
            for n, m in METHODS.items()
        )
        + " Where the gate refused a build, the command that it proposed was run; *n kept* says "
        "how many layers that keeps in floating point. "
        f"Measured beside other work on {' and '.join(sorted(machines))}; processors without VNNI "
        "get 7-bit weights. "
        f"{len(found)} of {len(NAMES)} networks have been run. –: not run.",
        "",
        "| network | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, rows in found.items():
        texts = [text_of(c, rows[c], notes) if c in rows else "–" for c in columns]
        lines.append(f"| `{name}` | " + " | ".join(texts) + " |")
    lines += ["", *(f"{place}. {note}" for place, note in enumerate(notes, 1))]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
