"""TensorRT's trtexec: ``peer_trtexec.py TRTEXEC MODEL PLAN``, where JetPack or a desktop has it.

Runs inference alone on random input, with copies to and from the GPU: the upper bound for loops.
"""

import re
import subprocess
import sys
from pathlib import Path

from worker import Answer, answer_to, rate_and_median


def main() -> None:
    """Build the plan once, then answer with what the program prints."""
    program, model, plan = sys.argv[1:4]

    def block(source: str, seconds: float) -> Answer:  # noqa: ARG001, it brings its own input
        if not Path(plan).exists():
            _run(program, f"--onnx={model}", f"--saveEngine={plan}", "--skipInference")
        return parse(_run(program, f"--loadEngine={plan}", f"--duration={seconds:g}"))

    head = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\[TensorRT v(\d+)\]", head)
    known = {"tensorrt": found[1]} if found else {}
    answer_to({"block": block}, {"versions": known, "threads": None})


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def parse(printed: str) -> Answer:
    """Figures of the performance summary; raises as :func:`worker.rate_and_median`."""
    median = r"\] Latency:.*?median = ([\d.]+) ms"
    return rate_and_median("trtexec", printed, r"Throughput:\s+([\d.]+) qps", median)


if __name__ == "__main__":
    main()
