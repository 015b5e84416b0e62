"""The measuring side: runs peers as processes and queries them in turns."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from figures import Block
from harness import turns
from typing_extensions import Self

from edgeseg import machine
from edgeseg.benchmark.conditions import busy_seconds
from edgeseg.errors import InferenceError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables by which the caller may have bound itself to one core; peers get all."""


class Peer:
    """A peer's process, from its first word until :meth:`close`.

    Args:
        name: For messages.
        command: Interpreter, script and arguments.
        environment: Of the process.
        log: Gets what it prints.

    Attributes:
        about: What it said of itself: ``versions``, ``threads``.

    Raises:
        InferenceError: It ended before it was ready.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={key: value for key, value in environment.items() if key not in THREADS},
            )
        try:
            self.about: dict[str, Any] = self._answer()["ready"]
        except BaseException:
            self.close()
            raise

    def ask(self, **question: object) -> dict[str, Any]:
        """Its answer, as :mod:`worker` says.

        Raises:
            InferenceError: It failed or ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        answer = self._answer()
        if "error" in answer:
            raise InferenceError(f"{self.name}: {answer['error']}", hint=f"see {self._log}")
        return answer

    def block(self, source: Path, seconds: float) -> Block:
        """One block of frames, with the load beside it."""
        before, own, began = _machine_seconds(), time.process_time(), time.perf_counter()
        answer = self.ask(do="block", source=str(source), seconds=seconds)
        elapsed = time.perf_counter() - began
        ours = time.process_time() - own + answer.pop("busy_seconds")
        other = max(0.0, (_machine_seconds() - before - ours) / elapsed)
        return Block(other_cores=other, **answer)

    def close(self) -> None:
        """End it: by the end of its questions, or else by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ended(self) -> InferenceError:
        last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
        return InferenceError(
            f"{self.name} ended: {last[0] if last else 'it said nothing'}", hint=f"see {self._log}"
        )


def interleave(
    peers: Sequence[Peer], source: Path, rounds: int, seconds: float, seed: int = 0
) -> Iterator[tuple[int, Peer, Block]]:
    """One block of each peer a round, in an order that the seed fixes, with the round's number.

    A block before the first round, which is thrown away, lets compilers and caches settle.
    """
    for peer in peers:
        peer.block(source, min(1.0, seconds))
    for number, peer in turns(peers, rounds, seed):
        yield number, peer, peer.block(source, seconds)


def _machine_seconds() -> float:
    return busy_seconds(machine.read_text(Path("/proc/stat")))
