"""Send messages to the service manager with the protocol of sd_notify(3).

Written out here, since it is these few lines: of the packages that do so, ``sdnotify`` dates
from 2017 and swallows all errors, ``systemd-watchdog`` needs Python 3.12, others link libsystemd.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

from typing_extensions import Self

from edgeseg.artifacts.documents import printable
from edgeseg.errors import UsageError


class Notifier:
    """A way to the manager of this process.

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
