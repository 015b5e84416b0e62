"""OpenVINO's benchmark_app: ``peer_benchmark_app.py MODEL [--hint throughput]``.

Runs inference alone on random input, restarted for each block: the upper bound for any loop.
"""

import subprocess
import sys
from pathlib import Path

from worker import Answer, answer_to, option, rate_and_median, versions


def main() -> None:
    """Answer with what the program prints."""
    program = str(Path(sys.executable).with_name("benchmark_app"))
    hint = option(sys.argv, "--hint", "throughput")
    command = [program, "-m", sys.argv[1], "-d", "CPU", "-hint", hint, "-ip", "f32"]

    def block(source: str, seconds: float) -> Answer:  # noqa: ARG001, it brings its own input
        ran = subprocess.run(
            [*command, "-t", str(max(1, round(seconds)))],
            capture_output=True,
            text=True,
            check=False,
        )
        return parse(ran.stdout)

    answer_to({"block": block}, {"versions": versions("openvino", "numpy"), "threads": None})


def parse(printed: str) -> Answer:
    """Figures of the program's last step; raises as :func:`worker.rate_and_median`."""
    return rate_and_median(
        "benchmark_app", printed, r"Throughput:\s+([\d.]+) FPS", r"Median:\s+([\d.]+) ms"
    )


if __name__ == "__main__":
    main()
