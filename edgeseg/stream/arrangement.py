"""Choose between several engines on few cores each and one over all cores, by measuring both.

Several are faster for most runtimes, networks and machines, so a stream begins with them. If it
lasts long enough to repay it, both take turns on its own frames, and again when the cores or the
rate change. All results are delivered in order meanwhile.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edgeseg.artifacts.documents import plural
from edgeseg.engines.base import Engine
from edgeseg.errors import EdgesegError
from edgeseg.machine import physical_cores, return_freed_memory, rss_mib, spare_memory_mib
from edgeseg.stream.lanes import Completion, Lane, Lanes

logger = logging.getLogger(__name__)

MOST_ENGINES = 8
"""Each needs memory for its activations, and for the frames that it holds."""

START_S = 10.0
"""How long several engines run before one is tried."""

_LEAST_LEFT_S = 30.0
"""A trial costs up to half a second of these."""

_BLOCK_S = 0.12
_LEAST_PAIRS, _LEAST_S, _MOST_S = 3, 0.8, 3.0
_GAIN = 1.02
"""Several engines have to be this much faster, since they take more memory."""

_WATCH_S = 5.0
_CHANGED = 1.4
"""Ratio of two rates, of which the older one no longer counts."""

_PAUSE_S, _LONGEST_PAUSE_S = 15.0, 600.0
"""Between two measurements because of the rate; doubles each time."""


@dataclass(frozen=True)
class Arrangement:
    """How many engines work side by side, and how it was decided.

    Attributes:
        threads: CPU threads of each; None if they were opened by the caller.
        measured: Frames per second by ``"ENGINESxTHREADS"``; None if nothing was compared.
    """

    engines: int
    threads: int | None = None
    measured: dict[str, float] | None = None
    measurements: int = 0

    def __str__(self) -> str:
        engines = "one engine" if self.engines == 1 else f"{self.engines} engines"
        threads = "" if self.threads is None else f" of {plural(self.threads, 'thread')}"
        rates = ", ".join(f"{name} {rate:.1f}" for name, rate in (self.measured or {}).items())
        return engines + threads + (f" (frames per second: {rates})" if rates else "")


class Rate:
    """Frames per second of lanes; the first completion of each only starts its clock."""

    def __init__(self, lanes: Sequence[Lane], now: float) -> None:
        self._began = now
        self._times: dict[Lane, list[float]] = {lane: [] for lane in lanes}
        self._frames = dict.fromkeys(lanes, 0)

    def add(self, completion: Completion) -> None:
        """Count a batch, if a lane of ours finished it."""
        times = self._times.get(completion.lane)
        if times is not None:
            self._frames[completion.lane] += completion.frames if times else 0
            times.append(completion.time)

    def enough(self, seconds: float, now: float) -> bool:
        """Whether each lane finished two batches or more after its first, over so long."""
        least = min(len(times) for times in self._times.values())
        return least > 2 and now - self._began >= seconds

    @property
    def value(self) -> float:
        """Sum of the lanes' rates, each between its first and its last completion."""
        spans = ((self._frames[lane], times[-1] - times[0]) for lane, times in self._times.items())
        return sum(frames / max(span, 1e-9) for frames, span in spans)


class RateTrial:
    """Two groups of lanes in turns, in blocks: first, second, second, first, and so on."""

    def __init__(self, first: Sequence[Lane], second: Sequence[Lane], now: float) -> None:
        self._groups = (tuple(first), tuple(second))
        self._rates: tuple[list[float], list[float]] = ([], [])
        self._began = now
        self._block = Rate(first, now)

    @property
    def active(self) -> Sequence[Lane]:
        """The lanes whose turn it is."""
        return self._groups[self._turn]

    @property
    def _turn(self) -> int:
        return (0, 1, 1, 0)[sum(map(len, self._rates)) % 4]

    def add(self, completions: Sequence[Completion], now: float) -> bool:
        """Count batches; returns whether it is decided which group is faster."""
        for each in completions:
            if each.lane not in self.active:  # which the others had to wait for
                self._block = Rate(self.active, now)
            self._block.add(each)
        if not self._block.enough(_BLOCK_S, now):
            return False
        self._rates[self._turn].append(self._block.value)
        self._block = Rate(self.active, now)
        return self._decided(now - self._began)

    def _decided(self, seconds: float) -> bool:
        pairs = [math.log(two / one) for one, two in zip(*self._rates, strict=False)]
        if len(pairs) < _LEAST_PAIRS or seconds < _LEAST_S:
            return False
        error = statistics.stdev(pairs) / math.sqrt(len(pairs))
        return seconds >= _MOST_S or abs(statistics.fmean(pairs) - math.log(_GAIN)) > 2 * error

    @property
    def rates(self) -> tuple[float, float]:
        """Median frames per second of both groups."""
        return statistics.median(self._rates[0]), statistics.median(self._rates[1])


@dataclass(frozen=True, eq=False)
class _Group:
    """Lanes that work side by side, and the engines that were opened for them."""

    lanes: Sequence[Lane]
    threads: int
    opened: Sequence[Engine] = ()

    def __str__(self) -> str:
        return f"{len(self.lanes)}x{self.threads}"

    def close(self) -> None:
        for lane in self.lanes:
            lane.close()
        for engine in self.opened:
            engine.close()


class Chooser:
    """Starts lanes with several engines of a network, measures one of all cores, uses the faster.

    Args:
        lane: The lane of the engine that the stream was given, which ``lanes`` use otherwise.
        make_lane: Function that makes the lane of an engine.
        frames_left: Function that returns the number of frames to come; None if unknown.
    """

    def __init__(
        self,
        lane: Lane,
        lanes: Lanes,
        make_lane: Callable[[Engine], Lane],
        frames_left: Callable[[], int | None],
    ) -> None:
        self._engine, self._lanes, self._make_lane = lane.engine, lanes, make_lane
        self._frames_left = frames_left
        self._cores = physical_cores()
        self._used = _Group([lane], self._cores)
        self._kept = False  # The engine has the number of threads that its caller chose.
        self._groups: list[_Group] = []
        self._steps = self._course()
        count, threads = self._wanted()[-1]
        if count > 1 and self._has_room(count):
            self._used = self._open(count, threads) or self._used
        lanes.use(self._used.lanes)
        chosen = None if self._kept else self._used.threads
        self.arrangement = Arrangement(len(self._used.lanes), chosen)

    def step(self) -> None:
        """Go on; to be called regularly by the thread that takes the results."""
        next(self._steps, None)

    def close(self) -> None:
        """Close the engines it opened; to be called when their lanes have ended."""
        self._steps.close()
        for group in self._groups:
            group.close()

    def _course(self) -> Generator[None, None, None]:
        rate = yield from self._measure(START_S)
        pause = _PAUSE_S
        while self._repays(rate):
            groups = yield from self._open_in_background()
            if not groups:
                return
            before = str(self._used)
            yield from self._choose(groups)
            pause = min(2 * pause, _LONGEST_PAUSE_S) if before == str(self._used) else _PAUSE_S
            rate = yield from self._watch(time.monotonic() + pause)

    def _repays(self, rate: float) -> bool:
        """Whether enough is left of the stream, and of the memory, to try another arrangement."""
        left = self._frames_left()
        return (left is None or left >= rate * _LEAST_LEFT_S) and self._has_room(2)

    def _has_room(self, times: int) -> bool:
        """Whether so many times what this process takes now would still fit into memory."""
        if (times - 1) * rss_mib() <= spare_memory_mib():
            return True
        logger.info("%s: too little memory to try several engines", self._engine.path.name)
        return False

    def _measure(self, seconds: float) -> Generator[None, None, float]:
        """Return the frames per second of the lanes in use, over ``seconds`` or more."""
        rate = Rate(self._used.lanes, time.monotonic())
        while not rate.enough(seconds, time.monotonic()):
            yield
            for each in self._fresh():
                rate.add(each)
        return rate.value

    def _wanted(self) -> list[tuple[int, int]]:
        """Numbers of engines and of threads each: one engine, and several if there are cores."""
        several = min(self._cores, MOST_ENGINES)
        return [*dict.fromkeys([(1, self._cores), (several, self._cores // several)])]

    def _open(self, count: int, threads: int) -> _Group | None:
        """Open a group; None if the engine stays as it is, or no other can be opened."""
        try:
            engines = self._engine.split(count, threads)
        except EdgesegError as error:
            logger.warning("several engines cannot be tried: %s", error.message)
            return None
        if not engines:
            self._kept = True
            return None
        self._groups.append(_Group([*map(self._make_lane, engines)], threads, engines))
        return self._groups[-1]

    def _open_in_background(self) -> Generator[None, None, list[_Group]]:
        """Return one or two groups for the cores there are; none if one cannot be opened."""
        self._cores = physical_cores()
        groups = []
        with ThreadPoolExecutor(1, "edgeseg opens engines") as opener:
            for count, threads in self._wanted():
                group: _Group | None = self._used
                if (count, threads) != (len(self._used.lanes), self._used.threads):
                    future = opener.submit(self._open, count, threads)
                    while not future.done():
                        yield
                    group = future.result()
                if group is None:
                    return []
                groups.append(group)
        return groups

    def _choose(self, groups: Sequence[_Group]) -> Generator[None, None, None]:
        """Use the faster group, and close what is not used any more."""
        best, measured = groups[0], None
        if len(groups) > 1:
            trial = RateTrial(groups[0].lanes, groups[1].lanes, time.monotonic())
            decided = False
            while not decided:
                self._lanes.use(trial.active)
                yield
                decided = trial.add(self._fresh(), time.monotonic())
            measured = {str(g): round(r, 2) for g, r in zip(groups, trial.rates, strict=True)}
            best = groups[trial.rates[1] > _GAIN * trial.rates[0]]
        self._used = best
        self._lanes.use(best.lanes)
        for group in [each for each in self._groups if each is not best]:
            self._lanes.remove(group.lanes)
            group.close()
            self._groups.remove(group)
        return_freed_memory()
        self.arrangement = Arrangement(
            len(best.lanes), best.threads, measured, self.arrangement.measurements + 1
        )
        logger.info("%s: %s", self._engine.path.name, self.arrangement)

    def _watch(self, until: float) -> Generator[None, None, float]:
        """Wait until the cores change, or after ``until`` the rate; returns the rate then."""
        usual = yield from self._measure(_WATCH_S)
        while True:
            rate = yield from self._measure(_WATCH_S)
            changed = not 1 / _CHANGED < rate / usual < _CHANGED
            if physical_cores() != self._cores or (changed and time.monotonic() >= until):
                return rate

    def _fresh(self) -> list[Completion]:
        completions = self._lanes.completions
        return [completions.popleft() for _ in range(len(completions))]
