"""Everything that edgeseg raises on purpose.

::

    EdgesegError                 exit 1
    ├─ UsageError                exit 2   the command line or a configuration value
    ├─ ArtifactError             exit 3   a file does not hold what it should
    │  ├─ CorruptArtifact                 truncated, altered, or not of its kind
    │  ├─ MismatchedArtifact              whole, but made for something else
    │  ├─ UntrustedArtifact               may hold code, and nothing vouches for it
    │  └─ DatasetError                    pictures and masks that do not fit together
    ├─ RuntimeMissing            exit 4   a library or device is not here
    ├─ SourceError               exit 5   a camera, stream, video or picture folder
    │  ├─ OpenFailed
    │  ├─ AuthFailed
    │  └─ SourceLost
    ├─ InferenceError            exit 6
    │  ├─ NonFiniteOutput
    │  └─ DeviceError
    ├─ AccuracyGateError         exit 7   the reduced precision lost too much
    ├─ RegressionError           exit 8   a benchmark is worse than the one before
    └─ OutputError               exit 9   an output cannot be written or served now

The message names the file, what was expected and what was found; ``hint`` is a hint for a fix. The
command line prints both and exits with ``exit_code``; library users catch the class.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "AccuracyGateError",
    "ArtifactError",
    "AuthFailed",
    "CorruptArtifact",
    "DatasetError",
    "DeviceError",
    "EdgesegError",
    "InferenceError",
    "MismatchedArtifact",
    "NonFiniteOutput",
    "OpenFailed",
    "OutputError",
    "RegressionError",
    "RuntimeMissing",
    "SourceError",
    "SourceLost",
    "UntrustedArtifact",
    "UsageError",
]


class EdgesegError(Exception):
    """Base of all errors that edgeseg raises on purpose.

    Args:
        message: One sentence with the file, what was expected and what was found.
        hint: Hint for a fix, if possible a command.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(EdgesegError):
    """The command line or a configuration value is wrong."""

    exit_code = 2


class ArtifactError(EdgesegError):
    """A file does not hold what it should."""

    exit_code = 3


class CorruptArtifact(ArtifactError):
    """The file is empty, truncated, altered, or not of the kind its name promises."""


class MismatchedArtifact(ArtifactError):
    """The file is whole but was made for another network, runtime, version or device."""


class UntrustedArtifact(ArtifactError):
    """The file could execute code when loaded and nothing vouches for its bytes."""


class DatasetError(ArtifactError):
    """Pictures and masks are missing, unreadable, or do not fit together."""


class RuntimeMissing(EdgesegError):
    """A library or a device that the command needs is not on this machine."""

    exit_code = 4


@contextlib.contextmanager
def needed(purpose: str, extra: str) -> Iterator[None]:
    """Raise RuntimeMissing if a library cannot be imported that the block imports.

    Args:
        purpose: Beginning of the message, e.g. ``reports need``; the name of the library follows.
        extra: Extra of edgeseg that installs the library.
    """
    try:
        yield
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        why = f"{missing.partition('.')[0]}, which is not installed" if missing else str(error)
        raise RuntimeMissing(f"{purpose} {why}", hint=f"pip install 'edgeseg[{extra}]'") from error


class SourceError(EdgesegError):
    """A camera, stream, video or picture folder failed."""

    exit_code = 5


class OpenFailed(SourceError):
    """The source could not be opened."""


class AuthFailed(SourceError):
    """The source refused the credentials."""


class SourceLost(SourceError):
    """The source delivered frames and then stopped before its end."""


class InferenceError(EdgesegError):
    """The engine ran and failed."""

    exit_code = 6


class NonFiniteOutput(InferenceError):
    """A tensor holds NaN or infinity."""


class DeviceError(InferenceError):
    """The device reported an error."""


class AccuracyGateError(EdgesegError):
    """The engine of reduced precision differs from FP32 by more than the limit.

    ``layers`` describes those that cost most, the most harmful first, as JSON types.
    """

    exit_code = 7

    def __init__(
        self, message: str, *, hint: str | None = None, layers: Sequence[Mapping[str, object]] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.layers = list(layers)


class RegressionError(EdgesegError):
    """A benchmark is worse than the one it is held against, by more than chance."""

    exit_code = 8


class OutputError(EdgesegError):
    """An output cannot be written or served now, and may be later: a full disk, a port in use."""

    exit_code = 9
