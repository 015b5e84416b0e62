"""Read and write the options of a command as a TOML file.

A key is an option without its leading dashes, e.g. ``record-minutes``, or the name of an
argument. Values are checked as the fields that they set (:mod:`edgeseg.options`). The command line
takes precedence over the environment, and the environment over the file.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from edgeseg.artifacts.documents import printable
from edgeseg.artifacts.files import atomic_path, open_file, refuse_to_replace
from edgeseg.errors import UsageError
from edgeseg.machine import expanded
from edgeseg.options.base import Option, Setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LIMIT = 1 << 20
"""Maximum size of a configuration file, in bytes."""

# A service that replaced its outputs at each start would keep no history.
_APART = frozenset({"config", "write_config", "overwrite"})

_EXAMPLES = {bool: True, int: 1, float: 1.0, Path: "PATH"}


@dataclass(frozen=True)
class _Key:
    """An option of the command that is allowed in a file.

    Attributes:
        setting: Type and metadata of its value.
        name: Key of the option in a file.
        off: Key that its ``--no-…`` form would have.
    """

    parameter: Any
    setting: Setting
    name: str
    off: str | None

    @property
    def option(self) -> Option:
        """How a file presents the value."""
        return self.setting.option or Option(self.parameter.help or "")

    @property
    def several(self) -> bool:
        """Whether the option takes a list."""
        return self.setting.several

    @property
    def is_path(self) -> bool:
        """Whether the value is a file or folder."""
        return self.setting.item is Path


def read(path: Path, context: typer.Context) -> dict[str, Any]:
    """Read a configuration file into a ``default_map``: parameter name → value.

    Args:
        path: TOML file. Relative paths in it start at its folder; ``~`` is the home folder.

    Raises:
        UsageError: The file is missing or not TOML, contains a secret that other users can read,
            or has an unknown key or an invalid value. The message never contains a value that
            may be secret.
    """
    from edgeseg.sources.credentials import require_private

    text = _text(path)
    keys = _keys(context)
    values = {}
    secret = False
    for name, value in _parsed(path, text).items():
        where = f"{path}:{_line(text, name)}"
        key = keys.get(name)
        if key is None:
            raise _unknown(where, name, value, list(keys.values()))
        _check(key, value, f"{where}: {name}")
        if key.is_path:
            value = str(expanded(value))
        secret = secret or _is_secret(key, value)
        values[key.setting.name] = _anchored(key, value, path.absolute().parent)
    if secret:
        require_private(path, "the password in it")
    return values


def write(path: Path, context: typer.Context, *, overwrite: bool) -> None:
    """Write the given options, with all help texts, to a file for :func:`read`.

    Options that were not given are written as comments. Relative paths become absolute. Values
    from the environment are not written. A file with a secret is readable by its owner only.

    Raises:
        UsageError: The file exists and ``overwrite`` is False or it is not TOML, it cannot be
            written, or a text is not valid UTF-8.
    """
    refuse_to_replace(path, overwrite=overwrite)
    if path.exists():
        _require_configuration(path)
    parts = [
        f"# edgeseg {context.info_name} --config {path.name}\n"
        "# Options of the command line go before those here. Relative paths start at this folder.\n"
    ]
    secret = False
    for key in _keys(context).values():
        value = context.params[key.setting.name]
        if value is not None and _is_given(context, key):
            value = _anchored(key, _plain(value), Path.cwd())
            secret = secret or _is_secret(key, value)
            line = f"{key.name} = {_toml(value)}"
        else:
            line = f"# {key.name} = {_toml(_default(key))}"
        parts.append(f"{_help(key)}{line}\n")
    try:
        data = "\n".join(parts).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"cannot write {path}: an option holds text that is not valid UTF-8",
            hint="rename the file or folder that it names",
        ) from error
    with atomic_path(path) as partial:
        if secret:
            partial.chmod(0o600)
        partial.write_bytes(data)


def _require_configuration(path: Path) -> None:
    """Raise UsageError if a file is not TOML: it may be an input that was named by mistake."""
    try:
        _parsed(path, _text(path))
    except UsageError as error:
        raise UsageError(
            f"{path} is no configuration file and would be replaced", hint="choose another path"
        ) from error


def _keys(context: typer.Context) -> Mapping[str, _Key]:
    """Options that are allowed in a file, by their key, in the order of the help."""
    callback = context.command.callback
    assert callback is not None
    hints = inspect.signature(callback, eval_str=True).parameters
    found = {}
    for parameter in context.command.params:
        if parameter.name is None or parameter.name in _APART:
            continue
        setting = _setting(parameter.name, hints[parameter.name].annotation)
        name, off = (_long_name(names) for names in (parameter.opts, parameter.secondary_opts))
        name = name or parameter.name
        found[name] = _Key(parameter, setting, name, off)
    return found


def _setting(name: str, hint: Any) -> Setting:
    """Return the field that the parameter stands for, or what its own type says."""
    metadata = getattr(hint, "__metadata__", ())
    fields = (each for each in metadata if isinstance(each, Setting))
    return next(fields, None) or Setting(name, hint, None)


def _is_given(context: typer.Context, key: _Key) -> bool:
    """Whether the value of the option comes from the command line or a file."""
    source = context.get_parameter_source(key.setting.name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def _long_name(names: Sequence[str]) -> str | None:
    """Return the long option name without dashes; None for an argument."""
    return next((name[2:] for name in names if name.startswith("--")), None)


def _text(path: Path) -> str:
    with open_file(path) as stream:
        data = stream.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise UsageError(f"{path}: expected at most {_LIMIT} bytes of TOML, found more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected TOML, found bytes that are not valid UTF-8") from error


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


def _unknown(where: str, name: str, value: Any, keys: Sequence[_Key]) -> UsageError:
    if not re.fullmatch(r"[\w-]+", name):  # a misplaced URL, perhaps, with a password in it
        return UsageError(f"{where}: expected the name of an option, found a key in quotes")
    message = f"{where}: unknown option {printable(name, 60)!r}"
    if isinstance(value, dict):
        return UsageError(message, hint=f"omit [{printable(name, 60)}]: there are no tables")
    spelt = name.lower().replace("_", "-")
    off = next((key.name for key in keys if key.off == spelt), None)
    if off:
        return UsageError(message, hint=f"write {off} = false")
    near = difflib.get_close_matches(spelt, [key.name for key in keys], n=1)
    listed = "--help lists the options, --write-config FILE.toml writes them all"
    return UsageError(message, hint=f"write {near[0]}; {listed}" if near else listed)


def _check(key: _Key, value: Any, where: str) -> None:
    """Raise UsageError if the value is not one of the option; its text may be a password."""
    if key.is_path and isinstance(value, str) and (not value or "\0" in value):
        raise UsageError(f"{where}: no file can have this name")
    found = f", found {_toml(value)}" if type(value) in (bool, int, float) else ""
    if key.option.parse is not None and not key.several and found:
        raise UsageError(f"{where}: expected text in quotes{found}", hint=_example(key, value))
    try:
        key.setting.check_json(json.dumps(value, default=str), where)
    except UsageError as error:
        raise UsageError(error.message + found, hint=error.hint or _example(key, value)) from error


def _example(key: _Key, value: Any) -> str:
    shown = _default(key)
    if isinstance(shown, str) and type(value) in (int, float):
        shown = str(value)
    return f"write it like this: {key.name} = {_toml(shown)}"


def _anchored(key: _Key, value: Any, folder: Path) -> Any:
    """Return the value with its relative paths made to start at ``folder``."""
    anchor = key.option.anchor
    if key.is_path:
        return str(folder / value)
    if anchor is None:
        return value
    return [anchor(each, folder) for each in value] if key.several else anchor(value, folder)


def _is_secret(key: _Key, value: Any) -> bool:
    holds = key.option.secret
    return holds is not None and any(map(holds, value if key.several else [value]))


def _default(key: _Key) -> Any:
    """Return the default of an option, or an example if it has none."""
    default = key.parameter.default
    if isinstance(default, (bool, int, float, str, Path)):
        return _plain(default)
    item = key.setting.item
    example: Any = key.option.metavar or "TEXT"
    if typing.get_origin(item) is typing.Literal:
        example = typing.get_args(item)[0]
    elif key.option.parse is None:
        example = _EXAMPLES.get(item, example)
    return [example] if key.several else example


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):  # from Typer before 0.25
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _help(key: _Key) -> str:
    text = " ".join((key.parameter.help or "").split())
    variable = key.parameter.envvar
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
