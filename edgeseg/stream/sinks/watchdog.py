"""Notify the service manager while, and only while, frames leave the loop."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence

from typing_extensions import Self

from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError
from edgeseg.stream.result import StreamResult
from edgeseg.stream.sinks.base import Sink, SourceStatus


class Notifier:
    """Sends messages to the service manager with the protocol of sd_notify(3).

    Of the packages that do so, ``sdnotify`` dates from 2017 and swallows all errors,
    ``systemd-watchdog`` needs Python 3.12, others link libsystemd.

    Args:
        address: Path of a datagram socket; ``@`` in front: in the abstract namespace.
        watchdog_s: Seconds without ``WATCHDOG=1`` after which the manager kills; None: never.
    """

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def of_environment(
        cls, environ: Mapping[str, str] = os.environ, pid: int | None = None
    ) -> Self | None:
        """As ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` say; None without them.

        Raises:
            UsageError: One of them is not what systemd sets.
        """
        address = environ.get("NOTIFY_SOCKET")
        if not address:
            return None
        if address[0] not in "/@" or len(address) < 2:
            raise UsageError(
                f"NOTIFY_SOCKET: expected /PATH or @NAME, found {printable(address, 60)!r}",
                hint="env -u NOTIFY_SOCKET edgeseg stream …",
            )
        mine = str(os.getpid() if pid is None else pid)
        watched = environ.get("WATCHDOG_USEC")
        if not watched or environ.get("WATCHDOG_PID", mine) != mine:
            return cls(address)
        if not watched.isdecimal() or int(watched) == 0:
            raise UsageError(
                f"WATCHDOG_USEC: expected microseconds, found {printable(watched, 60)!r}",
                hint="env -u WATCHDOG_USEC edgeseg stream …",
            )
        return cls(address, int(watched) / 1e6)

    def send(self, *assignments: str) -> None:
        """Send ``NAME=value`` once or several times; never waits.

        A message for which the manager has no room is dropped: it comes again.

        Raises:
            OSError: Nobody listens any more.
        """
        lines = "\n".join(printable(each, 400) for each in assignments)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sending.sendto(lines.encode(errors="replace"), self._address)


_STATUS_S = 1.0
"""Between two messages, at most a quarter of the manager's patience."""


class Watchdog(Sink):
    """The last sink of a service: what it says is true of all before it.

    ============== ==========================================================================
    ``READY=1``    when the first result has passed the sinks, or when the stream waits for
                   cameras that are off, so that a boot does not wait for them
    ``WATCHDOG=1`` while results pass, and while no source sends frames and one is waited for
    ``STATUS=``    frames per second, their age, the sources that do not send, and the outputs
                   that failed
    ``STOPPING=1`` at the end
    ============== ==========================================================================

    A camera that is off is the camera's fault, which no restart mends: the stream connects again
    by itself. A source that sends while no result comes out is ours, an engine or a sink that
    hangs: then nothing is said, and the manager kills and restarts. The same holds where all
    sources have ended and the stream does not.

    Args:
        notifier: To whom, and how patient it is.
    """

    retry = "next"

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._interval = min(_STATUS_S, (notifier.watchdog_s or 4 * _STATUS_S) / 4)
        self._sources: Sequence[SourceStatus] = ()
        self._ready = False
        self._passed = 0
        self._notified_at = time.monotonic()

    def __str__(self) -> str:
        return "the service manager's watchdog"

    def open(self, sources: Sequence[SourceStatus]) -> None:
        """Say that frames are waited for.

        Raises:
            OSError: Nobody listens.
        """
        self._sources = sources
        self._notifier.send("STATUS=waiting for the first frame")

    def write(self, result: StreamResult) -> None:
        """Tell that a result has passed."""
        self._passed += 1
        if self._due():
            self._notify(f", {(time.monotonic() - result.captured_at) * 1000:.0f} ms old")

    def idle(self) -> None:
        """Tell that the sources, not we, keep everyone waiting."""
        if self._waits() and self._due():
            self._notify("")

    def close(self) -> None:
        """Say that the end is near."""
        self._notifier.send("STOPPING=1")

    def _waits(self) -> bool:
        states = {source.state for source in self._sources}
        return "ok" not in states and not states.isdisjoint({"starting", "stalled", "reconnecting"})

    def _due(self) -> bool:
        return not self._ready or time.monotonic() - self._notified_at >= self._interval

    def _notify(self, age: str) -> None:
        now = time.monotonic()
        rate = self._passed / max(now - self._notified_at, 1e-3)
        quiet = [f"; {each.label}: {each.state}" for each in self._sources if each.state != "ok"]
        quiet += [f"; {it.name} failed" for it in self.context.reports() if it.state == "failed"]
        messages = [f"STATUS={rate:.1f} frames/s{age}{''.join(quiet)}"]
        if self._notifier.watchdog_s is not None:
            messages.append("WATCHDOG=1")
        if not self._ready:
            messages.append("READY=1")
        self._notifier.send(*messages)
        self._ready, self._passed, self._notified_at = True, 0, now
