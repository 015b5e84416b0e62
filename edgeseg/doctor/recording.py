"""A machine's description on disk: made where the trouble is, judged wherever one likes."""

from __future__ import annotations

import contextlib
import getpass
import platform
from pathlib import Path

from edgeseg.doctor.facts import SystemFacts, anonymous
from edgeseg.documents import load


def record(facts: SystemFacts, path: Path) -> None:
    """Write the facts, without this machine's host, user and home folder.

    Raises:
        UsageError: The folder cannot be written.
    """
    host = platform.node()
    private = {host, host.partition(".")[0], Path.home().name}
    with contextlib.suppress(OSError, KeyError):  # A user without a name, as containers have.
        private.add(getpass.getuser())
    anonymous(facts, private - {"root"}).save(path)


def read(path: Path) -> SystemFacts:
    """Read a recorded machine.

    Raises:
        UsageError: There is no such file.
        ArtifactError: It is no such document, or of another version.
    """
    return load(SystemFacts, path)
