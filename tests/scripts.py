"""Scripts of bench/, imported as they see themselves: beside the others of their folder."""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

BENCH = Path(__file__).parents[1] / "bench"


@contextlib.contextmanager
def scripts(folder: str = ".") -> Iterator[Callable[[str], ModuleType]]:
    """Yield a function that imports a script by its name, from a folder of bench/ or bench/ itself.

    At the end ``sys.path`` and ``sys.modules`` are as before, so that no other test can find a
    script by accident.
    """
    before, path = set(sys.modules), list(sys.path)
    sys.path[:0] = [str(BENCH / folder), str(BENCH)]
    try:
        yield importlib.import_module
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if BENCH in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
                del sys.modules[name]
