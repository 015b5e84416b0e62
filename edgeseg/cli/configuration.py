"""Read and write the options of a command as a TOML file.

A key is an option without its leading dashes, e.g. ``record-minutes``, or the name of an
argument. Keys, types and limits are taken from the parameters of the command. The command line
takes precedence over the environment, and the environment over the file.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from edgeseg.artifacts.documents import printable
from edgeseg.artifacts.files import atomic_path, open_file
from edgeseg.errors import UsageError
from edgeseg.sources.private import require_private

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LIMIT = 1 << 20
"""Maximum size of a configuration file, in bytes."""

_WORDS = {bool: "true or false", int: "a whole number", float: "a number"}
_TOML = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
_EXAMPLES = {bool: True, int: 1, float: 1.0, Path: "PATH", str: "TEXT"}


@dataclass(frozen=True)
class Meaning:
    """Facts about the options of a command that their types do not express.

    Attributes:
        apart: Names of parameters that are not allowed in a file.
        anchor: Parameter name → function that makes a relative path in a text start at a folder.
        secret: Parameter name → function that tells whether a text contains a secret.
    """

    apart: frozenset[str]
    anchor: Mapping[str, Callable[[str, Path], str]] = field(default_factory=dict)
    secret: Mapping[str, Callable[[str], bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Option:
    """A parameter of the command.

    Attributes:
        key: Key of the option in a file.
        off: Key that its ``--no-…`` form would have.
        type: Type of a single value: bool, int, float, str or Path.
        several: Whether the option takes a list.
    """

    parameter: Any
    key: str
    off: str | None
    type: type
    several: bool

    @property
    def name(self) -> str:
        """Name of the parameter in the command's function."""
        return str(self.parameter.name)


def read(path: Path, context: typer.Context, meaning: Meaning) -> dict[str, Any]:
    """Read a configuration file into a ``default_map``: parameter name → value.

    Args:
        path: TOML file. Relative paths in it start at its folder; ``~`` is the home folder.
        context: Context of the command.
        meaning: Additional facts about its options.

    Raises:
        UsageError: The file is missing or not TOML, contains a secret that other users can read,
            or has an unknown key or an invalid value. The message never contains a value that
            may be secret.
    """
    text = _text(path)
    options = {option.key: option for option in _options(context, meaning)}
    values = {}
    secret = False
    for key, value in _parsed(path, text).items():
        where = f"{path}:{_line(text, key)}"
        option = options.get(key)
        if option is None:
            raise _unknown(where, key, value, list(options.values()))
        found = _typed(where, option, value)
        try:
            secret = secret or _is_secret(option, found, meaning)
            found = _anchored(option, found, path.absolute().parent, meaning)
            option.parameter.process_value(context, found)
        except typer.BadParameter as error:
            raise UsageError(f"{where}: {key}: {error.message}") from error
        except UsageError as error:
            raise UsageError(f"{where}: {key}: {error.message}", hint=error.hint) from error
        values[option.name] = found
    if secret:
        require_private(path, "the password in it")
    return values


def write(path: Path, context: typer.Context, meaning: Meaning) -> None:
    """Write the given options, with all help texts, to a file for :func:`read`.

    Options that were not given are written as comments. Relative paths become absolute. Values
    from the environment are not written. A file with a secret is readable by its owner only.

    Raises:
        UsageError: The file cannot be written, or a text is not valid UTF-8.
    """
    name = context.info_name
    parts = [
        f"# edgeseg {name} --config {path.name}\n"
        "# Options of the command line go before those here. Relative paths start at this folder.\n"
    ]
    secret = False
    for option in _options(context, meaning):
        value = context.params[option.name]
        if value is not None and _given(context, option):
            value = _anchored(option, _plain(value), Path.cwd(), meaning)
            secret = secret or _is_secret(option, value, meaning)
            line = f"{option.key} = {_toml(value)}"
        else:
            line = f"# {option.key} = {_toml(_default(option))}"
        parts.append(f"{_help(option)}{line}\n")
    try:
        data = "\n".join(parts).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"cannot write {path}: an option holds a text that is no UTF-8",
            hint="rename the file or folder that it names",
        ) from error
    with atomic_path(path) as partial:
        if secret:
            partial.chmod(0o600)
        partial.write_bytes(data)


def _options(context: typer.Context, meaning: Meaning) -> list[_Option]:
    """Options that are allowed in a file, in the order of the help."""
    function = inspect.unwrap(context.command.callback or _nothing)
    hints = typing.get_type_hints(function)
    found = []
    for parameter in context.command.params:
        if parameter.name is None or parameter.name in meaning.apart:
            continue
        kind, several = _kind(hints[parameter.name])
        key, off = (_key(names) for names in (parameter.opts, parameter.secondary_opts))
        found.append(_Option(parameter, key or parameter.name, off, kind, several))
    return found


def _given(context: typer.Context, option: _Option) -> bool:
    """Whether the value of the option comes from the command line or a file."""
    source = context.get_parameter_source(option.name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def _nothing() -> None:
    """Stand in for the function of a command that has none."""


def _key(names: Sequence[str]) -> str | None:
    """Return the long option name without dashes; None for an argument."""
    return next((name[2:] for name in names if name.startswith("--")), None)


def _kind(hint: Any) -> tuple[type, bool]:
    """Split a type hint into item type and list flag: ``list[str] | None`` → (str, True)."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    several = typing.get_origin(hint) is list
    return (typing.get_args(hint)[0], True) if several else (hint, False)


def _text(path: Path) -> str:
    with open_file(path) as stream:
        data = stream.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise UsageError(f"{path}: expected at most {_LIMIT} bytes of TOML, found more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected TOML, found what is no UTF-8 text") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(
            f"{path}: expected TOML: {printable(str(error), 120)}",
            hint='texts stand in quotes, lists in [brackets]: source = ["rtsp://front/live"]',
        ) from error


def _line(text: str, key: str) -> int:
    """Find the line that assigns ``key``, counted from 1.

    The lines before it must be valid TOML without the key, so that text inside a multi-line
    string is not mistaken for an assignment.
    """
    lines = text.splitlines(keepends=True)
    pattern = re.compile(rf"""[\s\[]*["']?{re.escape(key)}["']?\s*[=.\]]""")
    for number, line in enumerate(lines):
        if not pattern.match(line):
            continue
        try:
            before = tomllib.loads("".join(lines[:number]))
        except tomllib.TOMLDecodeError:  # within a text or list of several lines
            continue
        if key not in before:
            return number + 1
    return 1


def _unknown(where: str, key: str, value: Any, options: Sequence[_Option]) -> UsageError:
    if not re.fullmatch(r"[\w-]+", key):  # a misplaced URL, perhaps, with a password in it
        return UsageError(f"{where}: expected the name of an option, found a key in quotes")
    message = f"{where}: unknown option {printable(key, 60)!r}"
    if isinstance(value, dict):
        return UsageError(message, hint=f"leave [{printable(key, 60)}] out: there are no tables")
    spelt = key.lower().replace("_", "-")
    off = next((option.key for option in options if option.off == spelt), None)
    if off:
        return UsageError(message, hint=f"write {off} = false")
    near = difflib.get_close_matches(spelt, [option.key for option in options], n=1)
    listed = "--help lists the options, --write-config FILE.toml writes them all"
    return UsageError(message, hint=f"write {near[0]}; {listed}" if near else listed)


def _typed(where: str, option: _Option, value: Any) -> Any:
    """Check a value and convert it for the command.

    Texts never appear in an error, since they may contain a password.
    """
    if option.several:
        if not isinstance(value, list):
            raise _wrong(where, option, "a list", value)
        return [_one(where, option, each) for each in value]
    return _one(where, option, value)


def _one(where: str, option: _Option, value: Any) -> Any:
    if option.type is float and type(value) is int:
        return float(value)
    expected: type = str if option.type is Path else option.type
    if type(value) is not expected:  # bool is an int, and 1 is not true
        raise _wrong(where, option, _WORDS.get(expected, "text in quotes"), value)
    if option.type is not Path:
        return value
    name = str(value)
    if not name or "\0" in name:
        raise UsageError(f"{where}: {option.key}: no file can have this name")
    return str(Path(name).expanduser())


def _wrong(where: str, option: _Option, expected: str, value: Any) -> UsageError:
    found = _TOML.get(type(value), "a table" if isinstance(value, dict) else "a date or time")
    if type(value) in (bool, int, float):
        found = _toml(value)
    example = _default(option)
    if option.type in (str, Path) and type(value) in (int, float):
        example = [str(value)] if option.several else str(value)
    return UsageError(
        f"{where}: {option.key}: expected {expected}, found {found}",
        hint=f"write it like this: {option.key} = {_toml(example)}",
    )


def _anchored(option: _Option, value: Any, folder: Path, meaning: Meaning) -> Any:
    """Return the value with its relative paths made to start at ``folder``."""
    anchor = meaning.anchor.get(option.name)
    if option.type is Path:
        return str(folder / value)
    if anchor is None:
        return value
    return [anchor(each, folder) for each in value] if option.several else anchor(value, folder)


def _is_secret(option: _Option, value: Any, meaning: Meaning) -> bool:
    holds = meaning.secret.get(option.name)
    return holds is not None and any(map(holds, value if option.several else [value]))


def _default(option: _Option) -> Any:
    """Return the default of an option, or an example if it has none."""
    default = option.parameter.default
    if isinstance(default, (bool, int, float, str, Path)):
        return _plain(default)
    example = _EXAMPLES[option.type]
    if option.type is str and option.parameter.metavar:
        example = option.parameter.metavar
    return [example] if option.several else example


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _help(option: _Option) -> str:
    text = " ".join((option.parameter.help or "").split())
    variable = option.parameter.envvar
    whole = f"{text}{f' Also from {variable}, which goes before this file.' if variable else ''}"
    return "".join(f"# {line}\n" for line in textwrap.wrap(whole, 96))


def _toml(value: Any) -> str:
    """Format a bool, number, text or list of these as TOML 1.0."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # JSON escapes are valid TOML; TOML also requires one for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
