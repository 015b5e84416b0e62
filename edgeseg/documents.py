"""JSON documents that are read from disk: validated in full, and refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeseg.artifacts import read_capped, write_atomic
from edgeseg.errors import CorruptArtifact, MismatchedArtifact

Model = TypeVar("Model", bound="Document")

_AGAIN = "make it again with the command that made it, or copy it again"


class Document(BaseModel):
    """Base of all that is read from disk: immutable; unknown keys are errors, and so is NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self, indent: int | None = None) -> str:
        """JSON that :func:`parse` reads back."""
        return self.model_dump_json(indent=indent)

    def save(self, path: Path) -> None:
        """Write as indented JSON, whole or not at all."""
        write_atomic(path, self.to_json(indent=2) + "\n")


def parse(model: type[Model], text: str | bytes, origin: str) -> Model:
    """Read a document of the kind ``model``.

    Args:
        model: The class to validate against.
        text: JSON.
        origin: The file it came from, for the error message.

    Raises:
        MismatchedArtifact: It states a schema version that this version does not know.
        CorruptArtifact: It is no JSON, or not a document of this kind.
    """
    try:
        # Editors on Windows put a byte order mark before the text.
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{origin}: not valid JSON ({error})", mend=_AGAIN) from error
    if isinstance(value, dict):
        field = model.model_fields.get("schema_version")
        known = field.default if field and not field.is_required() else None
        if known is not None and value.get("schema_version", known) != known:
            raise MismatchedArtifact(
                f"{origin}: schema version {shown(value['schema_version'])}, "
                f"this edgeseg reads version {known}",
                mend="make the artefact again with this edgeseg, or install the one that made it",
            )
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise CorruptArtifact(f"{origin}: {first_problem(error)}", mend=_AGAIN) from error


def load(model: type[Model], path: Path) -> Model:
    """Read a document from the file at ``path``; raises as :func:`parse` and ``read_capped``."""
    return parse(model, read_capped(path), str(path))


def first_problem(error: ValidationError) -> str:
    """The first finding of pydantic in one clause: ``where: what (and n more)``."""
    findings = error.errors(include_url=False, include_context=False, include_input=False)
    place = printable(".".join(str(part) for part in findings[0]["loc"]), 120)
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return f"{place + ': ' if place else ''}{printable(findings[0]['msg'])}{more}"


def printable(text: str, limit: int = 300) -> str:
    """``text`` on one line, cut short, and without what would move a terminal's cursor."""
    cut = text if len(text) <= limit else f"{text[:limit]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def shown(value: object) -> str:
    """A JSON value from a file, for a message."""
    return printable(repr(value), 60)
