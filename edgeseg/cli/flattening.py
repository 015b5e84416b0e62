"""Give a Typer command an option for each field of the option dataclasses that it takes."""

from __future__ import annotations

import functools
import inspect
import operator
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from edgeseg.options.base import Option, Options, Setting, settings


def flat(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function that takes objects of :class:`edgeseg.options.base.Options`.

    The command has one parameter for each of their fields with an ``Option``, and makes the
    objects from them. For ``Callable[..., Kind]`` it passes a function that makes the object
    from the remaining fields. Parameters may have an ``Option`` themselves; others stay as they
    are. What has the same name is one option.
    """
    parameters: dict[str, inspect.Parameter] = {}
    makers: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        kind, default = parameter.annotation, parameter.default
        own = Setting(parameter.name, kind, MISSING if default is parameter.empty else default)
        made = _made_kind(kind)
        if made is not None:
            makers[parameter.name] = functools.partial(_made, kind)
            for each in _offered(made):
                parameters.setdefault(each.name, _parameter(each))
        elif own.option is not None:
            makers[parameter.name] = functools.partial(_value, own)
            parameters[parameter.name] = _parameter(own)
        else:
            makers[parameter.name] = operator.itemgetter(parameter.name)
            parameters[parameter.name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)

    @functools.wraps(function)
    def command(**values: Any) -> None:
        function(**{name: make(values) for name, make in makers.items()})

    del command.__wrapped__  # Typer reads the signature below.
    # What inspect.signature(), and so Typer, reads; functions are not declared to have it.
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    return command


def _made_kind(kind: Any) -> type[Options] | None:
    """Return ``Kind`` for ``Kind`` and ``Callable[..., Kind]`` if it is a class of options."""
    if typing.get_origin(kind) is Callable:
        kind = typing.get_args(kind)[1]
    return kind if isinstance(kind, type) and issubclass(kind, Options) else None


def _offered(kind: type[Options]) -> Iterator[Setting]:
    """Yield the fields that are options, those of nested dataclasses included."""
    for setting in settings(kind).values():
        if inner := _made_kind(setting.type):
            yield from _offered(inner)
        elif setting.option is not None:
            yield setting


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    """Make the object from the values of its fields, or the function that makes it."""
    made = _made_kind(kind)
    assert made is not None
    given = {}
    for name, setting in settings(made).items():
        if _made_kind(setting.type):
            given[name] = _made(setting.type, values)
        elif setting.option is not None:
            given[name] = _value(setting, values)
    return made(**given) if made is kind else functools.partial(made, **given)


def _value(setting: Setting, values: Mapping[str, Any]) -> Any:
    """Return the value of a field as Python has it."""
    value = values[setting.name]
    if setting.several:
        value = tuple(value or ())
    elif setting.option is not None and setting.option.per_cent:
        value /= 100
    return setting.check(value, setting.flag)


def _parameter(setting: Setting) -> inspect.Parameter:
    """Return a field as a parameter for Typer, with the field among the metadata of its type."""
    option = setting.option
    assert option is not None
    default, scale = setting.default, 100 if option.per_cent else 1
    if setting.several:
        default = list(default) or None
    elif option.parse is not None and default is not None:
        default = option.format(default)
    elif option.per_cent:
        default *= scale
    lowest, highest = (None, None) if option.parse else _limits(setting)
    info = typer.Option(
        *([option.names] if option.names else []),
        help=option.help,
        metavar=option.metavar,
        envvar=option.envvar,
        autocompletion=suggesting(*option.suggestions) if option.suggestions else None,
        min=None if lowest is None else lowest * scale,
        max=None if highest is None else highest * scale,
    )
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[_type(setting, option), info, setting],
        default=inspect.Parameter.empty if default is MISSING else default,
    )


def _type(setting: Setting, option: Option) -> Any:
    """Return the type of the parameter: one that Typer can parse."""
    if setting.several:
        # A type made at run time, for Typer.
        return list[setting.item] | None  # type: ignore[name-defined]
    if option.parse is not None:
        return str if setting.default is not None else str | None
    return setting.type


def _limits(setting: Setting) -> tuple[float | None, float | None]:
    """Return the inclusive limits of a number, or of the numbers in a list."""
    item = typing.get_args(setting.type)[0] if setting.several else None
    fields = [*setting.metadata, *getattr(item, "__metadata__", ())]
    bounds = [bound for each in fields if isinstance(each, FieldInfo) for bound in each.metadata]
    lowest = next((bound.ge for bound in bounds if hasattr(bound, "ge")), None)
    highest = next((bound.le for bound in bounds if hasattr(bound, "le")), None)
    return lowest, highest


def suggesting(*words: str) -> Callable[[str], list[str]]:
    """Return a completion that offers words for an option that takes other texts as well."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete
