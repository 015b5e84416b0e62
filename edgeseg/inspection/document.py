"""The JSON document of ``edgeseg inspect``."""

from __future__ import annotations

from typing import Any, Literal

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.documents import Document
from edgeseg.artifacts.headers import FileContents
from edgeseg.errors import EdgesegError

Kind = Literal["checkpoint", "network", "engine", "ranges", "calibration set", "side-car"]


class Problem(Document):
    """Something wrong with a file: an error of :mod:`edgeseg.errors` as data."""

    kind: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, error: EdgesegError) -> Problem:
        """The error as it would have been raised."""
        return cls(kind=type(error).__name__, message=error.message, hint=error.hint)


class Calibration(Document):
    """Summary of a range file or calibration manifest.

    ``missing`` and ``changed`` count pictures that are gone or other ones now.
    """

    set_sha256: str
    pictures: int
    method: str | None = None
    tensors: int | None = None
    manifest: str | None = None
    source: str | None = None
    seed: int | None = None
    missing: int = 0
    changed: int = 0


class Link(Document):
    """An input from which an artefact was made.

    ``matches``: ``path`` has the bytes it was made from. ``differs``: ``path`` has the name,
    and other bytes. ``absent``: nothing here has those bytes.
    """

    role: str
    sha256: str
    state: Literal["matches", "differs", "absent"]
    path: str | None = None


class RunsHere(Document):
    """Whether this machine can load the artefact, and if not, why and how to fix that."""

    runs: bool
    runtime: str
    reason: str | None = None
    hint: str | None = None


class Inspection(Document):
    """Result of inspecting one file.

    ``vouched`` is whether the bytes are those of the side-car, None where there is no
    side-car; ``problems`` is empty for a sound file.
    """

    path: str
    kind: Kind
    bytes: int | None = None
    sha256: str | None = None
    vouched: bool | None = None
    problems: tuple[Problem, ...] = ()
    card: ModelCard | None = None
    contents: FileContents | None = None
    sidecar: dict[str, Any] | None = None
    calibration: Calibration | None = None
    chain: tuple[Link, ...] = ()
    runs_here: RunsHere | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON types; the card states its background, be it by name or not."""
        document = self.model_dump(mode="json")
        if self.card is not None:
            document["card"]["classes"]["background"] = self.card.classes.background
        return document
