"""The C++ kernels at a chosen level of instructions."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from edgeseg.ops.native import kernels


@pytest.fixture(scope="session")
def using() -> Callable[[str], AbstractContextManager[None]]:
    """``with using("portable"):`` the kernels run with those instructions."""

    @contextlib.contextmanager
    def chosen(level: str) -> Iterator[None]:
        assert kernels is not None
        before = kernels.level()
        kernels.use(level)
        try:
            yield
        finally:
            kernels.use(before)

    return chosen
