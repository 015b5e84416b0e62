"""Save the facts about a machine, and load them elsewhere for diagnosis."""

from __future__ import annotations

import contextlib
import getpass
import platform
from pathlib import Path

from edgeseg.artifacts.documents import load
from edgeseg.doctor.facts import SystemFacts, anonymous


def record(facts: SystemFacts, path: Path) -> None:
    """Write the facts to a file, without host name, user name and home folder.

    Raises:
        UsageError: The folder cannot be written.
    """
    host = platform.node()
    private = {host, host.partition(".")[0], Path.home().name}
    with contextlib.suppress(OSError, KeyError):  # The user has no name, as in some containers.
        private.add(getpass.getuser())
    anonymous(facts, private - {"root"}).save(path)


def read(path: Path) -> SystemFacts:
    """Read the facts about a recorded machine.

    Raises:
        UsageError: There is no such file.
        ArtifactError: The file is not such a document, or has another version.
    """
    return load(SystemFacts, path)
