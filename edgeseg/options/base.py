"""Fields that are options: their metadata, and the check of their values."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from edgeseg.artifacts.documents import first_problem
from edgeseg.errors import UsageError


@dataclass(frozen=True)
class Option:
    """How the command line and a TOML file present a field; its limits are pydantic's ``Field``.

    Attributes:
        help: Help text.
        names: Names on the command line, e.g. ``--realtime/--every-frame``; by default the name
            of the field. The first one is the key in a TOML file.
        metavar: Placeholder of the value in the help.
        envvar: Environment variable that also sets it.
        parse: Function that makes the value from a text, or each of several; raises UsageError.
        format: Function that makes a text from the default, where there is a ``parse``.
        suggestions: Values to complete in a shell, where others are possible too.
        per_cent: Whether users give a fraction of 1 in per cent.
        anchor: Function that makes relative paths in a text of a TOML file start at a folder.
        secret: Function that tells whether a text contains a secret.
    """

    help: str
    names: str | None = None
    metavar: str | None = None
    envvar: str | None = None
    parse: Callable[[str], Any] | None = None
    format: Callable[[Any], str] = str
    suggestions: tuple[str, ...] = ()
    per_cent: bool = False
    anchor: Callable[[str, Path], str] | None = None
    secret: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class Setting:
    """A field or parameter: its name, its type hint, and its default, ``MISSING`` for none."""

    name: str
    hint: Any
    default: Any

    @property
    def type(self) -> Any:
        """Its type without metadata."""
        return self.hint.__origin__ if self.metadata else self.hint

    @property
    def metadata(self) -> tuple[Any, ...]:
        """The metadata of its type."""
        return getattr(self.hint, "__metadata__", ())

    @cached_property
    def option(self) -> Option | None:
        """How users set it; None if they cannot."""
        return next((each for each in self.metadata if isinstance(each, Option)), None)

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """The check of its values."""
        hint = self.hint
        if self.option is not None and self.option.parse is not None:
            hint = Annotated[hint, BeforeValidator(_of_texts(self.option.parse))]
        return TypeAdapter(hint)

    @property
    def several(self) -> bool:
        """Whether it takes any number of values."""
        kind, parts = typing.get_origin(self.type), typing.get_args(self.type)
        return kind is list or (kind is tuple and ... in parts)

    @property
    def item(self) -> Any:
        """Type of a single value: ``str`` for ``tuple[str, ...]``, ``int`` for ``int | None``."""
        kind = typing.get_args(self.type)[0] if self.several else self.type
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            kind = next(each for each in typing.get_args(kind) if each is not type(None))
        return getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind

    @property
    def flag(self) -> str:
        """Name on the command line, e.g. ``--record-keep``."""
        names = self.option.names if self.option else None
        return names.partition("/")[0] if names else f"--{self.name.replace('_', '-')}"

    def words(self, value: Any) -> list[str]:
        """Return the words of a command line that set the value."""
        option = self.option
        if option is None:
            return []
        if isinstance(value, bool):
            off = option.names.rpartition("/")[2] if option.names else f"--no-{self.flag[2:]}"
            return [self.flag if value else off]
        if self.several:
            return [word for each in value for word in (self.flag, str(each))]
        text = option.format(value) if option.parse else str(value)
        return [self.flag, f"{100 * value:g}" if option.per_cent else text]

    def check(self, value: Any, where: str) -> Any:
        """Return the value in the type of the field; a UsageError starts with ``where``."""
        if value is self.default:  # for which no check has to be made
            return value
        return _checked(lambda: self.adapter.validate_python(value), where)

    def check_json(self, text: str, where: str) -> Any:
        """Like :meth:`check`, for a value in JSON, whose type is converted less freely."""
        return _checked(lambda: self.adapter.validate_json(text, strict=True), where)


class Options:
    """Base class of frozen dataclasses whose values are checked against their annotations.

    Raises:
        UsageError: A value has the wrong type or is out of range.
    """

    def __post_init__(self) -> None:
        for name, setting in settings(type(self)).items():
            object.__setattr__(self, name, setting.check(getattr(self, name), name))


def settings(kind: type) -> Mapping[str, Setting]:
    """Return the fields of a dataclass by their name."""
    key: Any = kind  # for mypy, a dataclass whose objects cannot be hashed cannot either
    return _settings(key)


@cache
def _settings(kind: type) -> Mapping[str, Setting]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        field.name: Setting(field.name, hints[field.name], field.default)
        for field in dataclasses.fields(kind)
    }


def words(options: Options) -> list[str]:
    """Return the words of a command line for all values that differ from their defaults."""
    found: list[str] = []
    for name, setting in settings(type(options)).items():
        value = getattr(options, name)
        if isinstance(value, Options):
            found += words(value)
        elif value != setting.default:
            found += setting.words(value)
    return found


def _of_texts(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Return a function that parses a text, or each text of several, and passes the rest on."""

    def parsed(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(map(parsed, value))
        return parse(value) if isinstance(value, str) else value

    return parsed


def _checked(check: Callable[[], Any], where: str) -> Any:
    try:
        return check()
    except ValidationError as error:
        raise UsageError(f"{where}: {first_problem(error)}") from error
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from error


Data = Annotated[
    Path, Option("Data set: {train,val}/{images,masks|instances}, PASCAL VOC or Cityscapes.")
]
OptionalData = Annotated[
    Path | None, Option("Labelled pictures: {train,val}/{images,masks|instances}.")
]
SplitName = Annotated[str, Option("Split of --data to use: train, val or test.")]
Background = Annotated[
    str | None,
    Option("Class that overlays leave clear, or none; default: the class named background."),
]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), Option("Random seed.")]
Threads = Annotated[
    int | None,
    Field(ge=1, le=1024),
    Option("Number of CPU threads; default: the runtime's choice."),
]
