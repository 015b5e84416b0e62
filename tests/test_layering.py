"""Which part of the package may import what; imports inside functions count as those on top."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgeseg"

# Folders and root modules from top to bottom. What is in a row imports from the rows below it; no
# two of a row import one another.
ROWS = (
    ("cli",),
    ("report",),
    ("archive", "benchmark", "building", "export"),
    ("importing", "inference", "inspection", "loading"),
    ("doctor", "precision", "stream", "training"),
    ("evaluation", "sources"),
    ("data", "engines"),
    ("models", "objects", "ops", "options", "runs"),
    ("artifacts", "metrics", "tiling"),
    ("console", "errors", "machine"),
)
ROW = {part: row for row, parts in enumerate(ROWS) for part in parts}
# The package itself offers lazily what is in it; __main__ is the command line by another name.
EXEMPT = ("edgeseg", "edgeseg.__main__")

RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx")
TORCH = ("torch", "torchvision", "kornia", "timm")
WITHOUT_TORCH = (
    "archive", "artifacts", "benchmark", "building", "doctor", "engines", "evaluation",
    "importing", "inspection", "metrics", "objects", "ops", "options", "precision", "report",
    "runs", "sources", "stream", "tiling",
)  # fmt: skip
WITHOUT_RUNTIMES = (
    "artifacts", "data", "inspection", "metrics", "models", "objects", "ops", "options", "report",
    "runs", "sources", "stream", "tiling", "training",
)  # fmt: skip
# Part of the package → libraries that nothing in it may import. Of several that fit, all hold.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "options": ("numpy", "cv2", "typer"),
    "models": ("onnx",),
    "errors": ("numpy", "cv2"),
    "artifacts.files": ("numpy", "cv2", "pydantic"),
    "artifacts.card": ("numpy", "cv2"),
    **{
        f"data.{module}": TORCH
        for module in ("check", "convert", "folders", "instances", "sample", "selection", "sheet")
    },
}


def module_name(path: Path, root: Path) -> str:
    """Dotted name of a source file, ``edgeseg.ops`` for ``edgeseg/ops/__init__.py``."""
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of all that a file imports, however deep, save for annotations."""
    package = module_name(path, root).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    pending: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (
                (node.lineno, argument.value)
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            )


def part_of(name: str) -> str | None:
    """``ops`` of ``edgeseg.ops.overlay``; None for other libraries and ``edgeseg`` itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "edgeseg" and len(parts) > 1 and parts[1] in ROW else None


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_allowed(module: str, name: str) -> bool:
    """Whether a module of the package may import a name."""
    mine, other = part_of(module), part_of(name)
    if mine is not None and other is not None:
        return mine == other or ROW[mine] < ROW[other]
    banned = [
        name for part, names in LIBRARIES.items() if within(module[8:], part) for name in names
    ]
    banned += TORCH if mine in WITHOUT_TORCH else ()
    banned += RUNTIMES if mine in WITHOUT_RUNTIMES else ()
    return not any(within(name, ban) for ban in banned)


def violations(root: Path) -> list[str]:
    return [
        f"{module}:{line} imports {name}"
        for path in sorted(root.rglob("*.py"))
        if (module := module_name(path, root)) not in EXEMPT
        for line, name in imports(path, root)
        if not is_allowed(module, name)
    ]


def test_every_module_keeps_to_its_row() -> None:
    assert not violations(PACKAGE)


def test_every_part_has_its_row() -> None:
    parts = {
        path.stem if path.suffix else path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - {"__init__", "__main__"} == set(ROW)


@pytest.mark.parametrize(
    ("file", "code", "caught"),
    [
        ("ops/a.py", "import torch", "torch"),
        ("stream/a.py", "def f():\n    from torch import nn", "torch.nn"),
        ("engines/a.py", "class A:\n    def f(self):\n        import torch.nn as n", "torch.nn"),
        ("precision/a.py", "try:\n    import torch\nexcept ImportError: pass", "torch"),
        ("models/a.py", "import onnxruntime", "onnxruntime"),
        ("models/a.py", "from ..engines import base", "edgeseg.engines.base"),
        ("data/a.py", "from edgeseg import cli", "edgeseg.cli"),
        ("runs.py", "from . import cli", "edgeseg.cli"),
        ("runs.py", "import importlib\nimportlib.import_module('edgeseg.cli')", "edgeseg.cli"),
        ("metrics.py", "from edgeseg.training import loop", "edgeseg.training.loop"),
        ("runs.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import edgeseg.cli", "edgeseg.cli"),
        ("benchmark/a.py", "from edgeseg.export import triton", "edgeseg.export.triton"),
        ("data/sheet.py", "import torch", "torch"),
    ],
)
def test_planted_violation_is_caught(tmp_path: Path, file: str, code: str, caught: str) -> None:
    planted = tmp_path / "edgeseg" / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(code)
    (violation,) = violations(tmp_path / "edgeseg")
    assert violation.endswith(f"imports {caught}")


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("models/a.py", "import torch"),
        ("data/loader.py", "import torch"),
        ("ops/a.py", "import torchless\nfrom edgeseg.ops import overlay"),
        ("stream/a.py", "if TYPE_CHECKING:\n    import torch"),
        ("cli/a.py", "from edgeseg import cli"),
        ("report/a.py", "def f():\n    from edgeseg.benchmark import document"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, file: str, code: str) -> None:
    planted = tmp_path / "edgeseg" / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(code)
    assert not violations(tmp_path / "edgeseg")
