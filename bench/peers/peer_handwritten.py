"""ONNX Runtime and OpenCV by hand: ``peer_handwritten.py MODEL NETWORK.json [--care yes]``.

The loop of tutorials: one thread, defaults everywhere, a line for each step. With care it takes
the best that OpenCV offers for each of them.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import handwritten
import onnxruntime
from worker import camera_loop, network, option, serve, versions


def main() -> None:
    """Open the network and answer."""
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    careful = option(sys.argv, "--care", "no") == "yes"
    make = handwritten.with_care if careful else handwritten.as_people_write_it
    steps = make(network(sys.argv[2]))
    frames = camera_loop(
        steps.prepare, lambda tensor: session.run(None, {name: tensor})[0][0], steps.draw
    )
    about = {"versions": versions("numpy", "opencv-python", "onnxruntime"), "threads": None}
    serve(frames, about)


if __name__ == "__main__":
    main()
