"""A pool of Ray Data actors, each with one open engine. The only module that imports Ray.

Ray restarts an actor that died and repeats its unfinished units.
:data:`edgeseg.archive.work.TRIES` limits how often a unit that kills its worker is retried.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.archive.journal import Pending
from edgeseg.archive.work import Desk, Job, Outcome, failure_of
from edgeseg.artifacts.documents import parse
from edgeseg.errors import EdgesegError, InferenceError, RuntimeMissing, UsageError

OBJECT_STORE_BYTES = 200 * 1024 * 1024
"""Object store size of a local cluster. It holds only units and records, never pictures."""

_MOST_A_TASK = 16
"""Units per task, the most that a worker's crash repeats."""


@dataclass(frozen=True)
class Cluster:
    """The cluster to run on, and the resources of its workers.

    Attributes:
        address: ``local`` for workers on this machine alone, ``ray://HOST:10001``, or ``auto``
            for the cluster that this machine belongs to.
        workers: Number of workers; None for as many as the CPUs (or GPUs) allow.
        threads: CPU threads of each worker's engine.
    """

    address: str = "local"
    workers: int | None = None
    threads: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        if self.address not in ("local", "auto") and not self.address.startswith("ray://"):
            raise UsageError(
                f"--cluster takes local, auto or ray://HOST:10001, not {self.address!r}"
            )


class Worker:
    """A worker actor. It never raises; errors are returned as outcomes."""

    desk: type[Desk] = Desk

    def __init__(self, job: str) -> None:
        self._refusal: EdgesegError | None = None
        try:
            self._desk = self.desk(parse(Job, job, "the job"))
        except EdgesegError as error:
            self._refusal = error
        except ModuleNotFoundError as error:
            self._refusal = RuntimeMissing(
                f"a worker lacks {error.name}", hint="install the same edgeseg on all machines"
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Process a batch: column ``pending`` in, column ``outcome`` out, both JSON strings."""
        done = []
        for row in batch["pending"]:
            pending = parse(Pending, row, "a unit")
            if self._refusal is not None:
                done.append(Outcome(refusal=failure_of(self._refusal, pending.unit)))
            else:
                done.append(self._desk.do(pending))
        return {"outcome": [outcome.to_json() for outcome in done]}


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Connect to a cluster for the duration of the block; an existing connection is reused.

    A local cluster listens on loopback only, requires a token, and is shut down afterwards. Ray's
    usage reports are disabled, and its output goes to stderr.

    Raises:
        RuntimeMissing: Ray is not installed, or the cluster does not respond.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(_environment(_settings(cluster)))
        ray = _ray()
        if not ray.is_initialized():
            options = _local(cluster, stack) if cluster.address == "local" else {}
            try:
                ray.init(cluster.address, log_to_driver=False, logging_level="ERROR", **options)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                raise RuntimeMissing(
                    f"no cluster at {cluster.address}: {_last_line(error)}",
                    hint="check whether it runs (`ray status` on its head); versions of Ray and "
                    "Python must be the same on all machines, and where it asks for a token, set "
                    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
                ) from error
            stack.callback(ray.shutdown)
        yield


def outcomes(
    cluster: Cluster, job: Job, pending: Sequence[Pending], worker: type[Worker] = Worker
) -> Generator[Outcome, None, None]:
    """Process all units on the connected cluster and yield their outcomes as they arrive.

    Args:
        cluster: Cluster passed to :func:`connected`.
        job: Job description, shared by all units.

    Raises:
        UsageError: No machine has the resources for a worker.
        InferenceError: The cluster as a whole failed.
    """
    ray = _ray()
    least, most = _pool(cluster, ray.cluster_resources(), len(pending))
    plan = _Plan(cluster, least, most, job.to_json(), worker)
    units = [each.to_json() for each in pending]
    run = _from_outside if ray.util.client.ray.is_connected() else _run
    try:
        for row in run(plan, units):
            yield parse(Outcome, row, "a worker")
    except ray.exceptions.RayError as error:
        raise InferenceError(
            f"the cluster failed: {_last_line(error)}",
            hint="the same command continues where it stopped; `ray status` and Ray's "
            "logs say more",
        ) from error


@dataclass(frozen=True)
class _Plan:
    """Parameters of the actor pool: class, job and number of actors."""

    cluster: Cluster
    least: int
    most: int
    job: str
    worker: type[Worker]


def _run(plan: _Plan, units: list[str]) -> Iterator[str]:
    """Run units through the actor pool; JSON in, JSON out."""
    ray = _ray()
    a_task = max(1, min(_MOST_A_TASK, len(units) // (plan.most * 4)), len(units) // 20_000)
    rows = ray.data.from_items(
        [{"pending": unit} for unit in units], override_num_blocks=-(-len(units) // a_task)
    ).map_batches(
        plan.worker,
        fn_constructor_args=(plan.job,),
        batch_size=a_task,
        compute=ray.data.ActorPoolStrategy(min_size=plan.least, max_size=plan.most),
        num_cpus=plan.cluster.threads,
        num_gpus=plan.cluster.gpus,
    )
    for row in rows.iter_rows():
        yield row["outcome"]


class _Inside:
    """Runs :func:`_run` in an actor, since Ray Data does not work through Ray Client."""

    def __init__(self, plan: _Plan, units: list[str]) -> None:
        self._rows = _run(plan, units)

    def some(self) -> list[str]:
        """Return the next outcomes; empty at the end."""
        return list(itertools.islice(self._rows, _MOST_A_TASK))


def _from_outside(plan: _Plan, units: list[str]) -> Iterator[str]:
    ray = _ray()
    inside = ray.remote(num_cpus=0)(_Inside).remote(plan, units)
    while rows := ray.get(inside.some.remote()):
        yield from rows


def _pool(cluster: Cluster, has: dict[str, float], units: int) -> tuple[int, int]:
    """Minimum and maximum number of actors: as configured, else as resources allow."""
    if cluster.workers is not None:
        return min(cluster.workers, units), min(cluster.workers, units)
    room = has.get("CPU", 0) // cluster.threads
    if cluster.gpus:
        room = min(room, has.get("GPU", 0) // cluster.gpus)
    if room < 1:
        raise UsageError(
            f"a worker takes {cluster.threads} processors and {cluster.gpus} GPUs, and no machine "
            f"has them ({has.get('CPU', 0):g} and {has.get('GPU', 0):g} in all)",
            hint="fewer --threads; where machines are added on demand, say how many with --workers",
        )
    return 1, min(int(room), units)


def _local(cluster: Cluster, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Options of ``ray.init`` for a local cluster."""
    # Ray's socket paths add 82 characters to this, and 107 is the limit.
    short = tempfile.gettempdir() if len(tempfile.gettempdir()) <= 24 else "/tmp"
    folder = tempfile.mkdtemp(prefix="edgeseg-", dir=short)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    processors = len(os.sched_getaffinity(0))
    return {
        "num_cpus": (cluster.workers or max(processors // cluster.threads, 1)) * cluster.threads,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_temp_dir": folder,
    }


def _settings(cluster: Cluster) -> dict[str, str]:
    """Environment variables that Ray and its processes read on start."""
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # Errors also reach us as exceptions.
    }
    if cluster.address != "local":
        return quiet
    # Ray would create a token by itself and leave it in a file in the home folder; it reads
    # this variable once per process.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # With 0, the default on Windows and macOS, Ray listens on loopback only.
    return quiet | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise RuntimeMissing(
            f"--cluster needs Ray Data, and {error.name} is not installed",
            hint="pip install 'edgeseg[cluster]'",
        ) from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
