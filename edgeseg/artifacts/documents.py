"""JSON documents, fully validated when read, with one-sentence errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeseg.artifacts.files import read_capped, write_atomic
from edgeseg.errors import CorruptArtifact, MismatchedArtifact

Model = TypeVar("Model", bound="Document")

_AGAIN = "make it again with the command that made it, or copy it again"


class Document(BaseModel):
    """Base class of JSON documents: immutable; unknown keys and NaN are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self, indent: int | None = None) -> str:
        """Serialise to JSON that :func:`parse` can read."""
        return self.model_dump_json(indent=indent)

    def save(self, path: Path) -> None:
        """Write as indented JSON, atomically."""
        write_atomic(path, self.to_json(indent=2) + "\n")


def parse(model: type[Model], text: str | bytes, origin: str) -> Model:
    """Parse and validate a JSON document.

    Args:
        origin: The file it came from, for the error message.

    Raises:
        MismatchedArtifact: The document has an unsupported schema version.
        CorruptArtifact: The text is not JSON, or not a valid document of this class.
    """
    try:
        # Windows editors may add a byte order mark.
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{origin}: not valid JSON ({error})", hint=_AGAIN) from error
    if isinstance(value, dict):
        field = model.model_fields.get("schema_version")
        known = field.default if field and not field.is_required() else None
        if known is not None and value.get("schema_version", known) != known:
            raise MismatchedArtifact(
                f"{origin}: schema version {shown(value['schema_version'])}, "
                f"this edgeseg reads version {known}",
                hint="make the artefact again with this edgeseg, or install the one that made it",
            )
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise CorruptArtifact(f"{origin}: {first_problem(error)}", hint=_AGAIN) from error


def load(model: type[Model], path: Path) -> Model:
    """Read a document from the file at ``path``; raises as :func:`parse` and ``read_capped``."""
    return parse(model, read_capped(path), str(path))


def first_problem(error: ValidationError) -> str:
    """Format pydantic's first error in one clause: ``where: what (and n more)``."""
    findings = error.errors(include_url=False, include_context=False, include_input=False)
    place = printable(".".join(str(part) for part in findings[0]["loc"]), 120)
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    message = findings[0]["msg"].removeprefix("Value error, ").removeprefix("Tuple ")
    what = printable(message.replace(" after validation", ""))
    return f"{place + ': ' if place else ''}{what}{more}"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 picture``, ``2 pictures``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(text: str, limit: int = 300) -> str:
    """Return ``text`` on one line, truncated, and without terminal control characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def shown(value: object) -> str:
    """Format a JSON value for a message."""
    return printable(repr(value), 60)
