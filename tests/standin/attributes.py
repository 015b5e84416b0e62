"""Members that the classes of TensorRT have by the dozen."""

from collections.abc import Callable
from typing import Any


def count(name: str) -> property:
    """Length of a private list."""
    return property(lambda self: len(getattr(self, name)))


def item(name: str) -> Callable[[Any, int], Any]:
    """A method that returns an item of a private list; None behind its end."""
    return lambda self, index: dict(enumerate(getattr(self, name))).get(index)


def fact(name: str) -> property:
    """What the parser found."""
    return property(lambda self: getattr(self._facts, name))


def settable(name: str) -> property:
    """A private attribute, read and assigned by another name."""
    return property(
        lambda self: getattr(self, name), lambda self, value: setattr(self, name, value)
    )
