"""A module whose names are those of one list, and nothing else."""

import enum
import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple, NoReturn

from standin import building, running
from standin.machine import Machine

API = Path(__file__).parent / "api"
VERSIONS = ("8.6.1", "10.3.0", "10.16.1", "11.4.0", "rtx-1.7.1")
"""Of the lists; that of TensorRT-RTX makes a module ``tensorrt_rtx``."""


class Call(NamedTuple):
    """A call of a method (or an assignment to an attribute) of the stand-in."""

    name: str
    arguments: tuple[Any, ...]


def tensorrt(version: str, machine: Machine | None = None, **changes: Any) -> Any:
    """The stand-in for one version.

    Args:
        version: One of :data:`VERSIONS`.
        machine: Where it runs; a desktop with a GPU by default.
        changes: Fields of :class:`Machine` that differ.
    """
    listing = json.loads((API / f"tensorrt-{version}.json").read_text())
    name = "tensorrt_rtx" if version.startswith("rtx-") else "tensorrt"
    trt: Any = ModuleType(name)
    trt.__version__ = version.removeprefix("rtx-")
    trt._said = f"TensorRT {version}"
    trt._machine = machine or Machine(**changes)
    trt._calls = []
    trt.__getattr__ = functools.partial(_absent, trt._said, "")
    for entry, members in listing.items():
        setattr(trt, entry, _entry(trt, entry, members))
    return trt


def calls(trt: Any) -> list[Call]:
    """All that was called and assigned so far, in that order."""
    made: list[Call] = trt._calls
    return made


def called(trt: Any, name: str) -> list[tuple[Any, ...]]:
    """The arguments of each call of ``Class.method``, or of each value given to an attribute."""
    return [call.arguments for call in calls(trt) if call.name == name]


def _entry(trt: Any, name: str, members: Any) -> Any:
    if isinstance(members, str):
        return _inert(f"{trt._said} {name}") if "function" in members else members
    if members and all(member.isupper() for member in members) and not name.startswith("Dims"):
        return _enumeration(trt._said, name, members)
    return _class(trt, name, members)


def _absent(said: str, owner: str, name: str) -> NoReturn:
    raise AttributeError(f"{said} has no {owner}{name}")


class _Listed(type):
    """Classes that say which version lacks what they are asked for."""

    _said: str

    def __getattr__(cls, name: str) -> NoReturn:
        _absent(cls._said, f"{cls.__name__}.", name)


class _Instance(metaclass=_Listed):
    """Refuses names that its class has not; a subclass of the caller's has its own names."""

    _said: str
    _owner: type
    _names: frozenset[str]

    def __getattr__(self, name: str) -> NoReturn:
        _absent(self._said, f"{type(self).__name__}.", name)

    def __setattr__(self, name: str, value: Any) -> None:
        if type(self) is self._owner and not name.startswith("_"):
            if name not in self._names:
                _absent(self._said, f"{type(self).__name__}.", name)
            self._trt._calls.append(Call(f"{type(self).__name__}.{name}", (value,)))
        super().__setattr__(name, value)


def _class(trt: Any, name: str, members: list[str]) -> type:
    """A class with the listed names: what is written for it, and inert methods for the rest."""
    written: dict[str, Any] = {}
    for module in (building, running):
        written |= dict(vars(getattr(module, name, object))) if hasattr(module, name) else {}
    body: dict[str, Any] = {
        key: value
        for key, value in written.items()
        if key in members or (key.startswith("_") and key not in ("__dict__", "__weakref__"))
    }
    for member in members:
        value = body.get(member)
        if member == "Severity":
            levels = [level for level in members if level.isupper()]
            body["Severity"] = _enumeration(trt._said, "Severity", levels)
            body |= {level: body["Severity"][level] for level in levels}
        elif value is None:
            body[member] = _inert(f"{trt._said} {name}.{member}")
        elif isinstance(value, FunctionType):
            body[member] = _recorded(trt, f"{name}.{member}", value)
    body |= {"_trt": trt, "_said": trt._said, "_names": frozenset(members)}
    made = _Listed(name, (_Instance,), body)
    made._owner = made  # type: ignore[attr-defined]
    return made


def _recorded(trt: Any, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        trt._calls.append(Call(name, (*arguments, *named.values())))
        return method(self, *arguments, **named)

    return call


def _inert(name: str) -> Callable[..., NoReturn]:
    def call(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"the stand-in for {name} does nothing")

    return call


class _ListedEnum(enum.EnumMeta):
    def __getattr__(cls, name: str) -> NoReturn:
        _absent(cls.__doc__ or "", f"{cls.__name__}.", name)


class _Member(enum.Enum, metaclass=_ListedEnum):
    """Like pybind11's: an integer when asked, and equal to its own kind only."""

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__

    def __getattr__(self, name: str) -> NoReturn:
        _absent(type(self).__doc__ or "", f"{type(self).__name__}.", name)


def _enumeration(said: str, name: str, members: list[str]) -> Any:
    made = _Member(name, {member: place for place, member in enumerate(members)})  # type: ignore[misc]
    made.__doc__ = said
    return made
