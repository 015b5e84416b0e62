"""Which module may import what; imports inside functions count as much as those on top."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgeseg"
RUNTIMES = ("onnxruntime", "tensorrt", "tensorrt_rtx", "edgeseg.engines", "edgeseg.stream")
TRAINING = ("torch", "torchvision", "kornia", "edgeseg.models", "edgeseg.training")

ABOVE_ARTIFACTS = tuple(
    f"edgeseg.{path.name}"
    for path in sorted(PACKAGE.iterdir())
    if (path / "__init__.py").exists() and path.name != "artifacts"
)

# Part of the package → what nothing in it may import. Of two that fit, both hold.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "edgeseg": ("edgeseg.cli",),
    "edgeseg.artifacts": ABOVE_ARTIFACTS,
    "edgeseg.options": (*TRAINING, *RUNTIMES, "numpy", "cv2", "typer"),
    "edgeseg.sources": (*TRAINING, *RUNTIMES),
    "edgeseg.stream": TRAINING,
    "edgeseg.engines": TRAINING,
    "edgeseg.ops": (*TRAINING, *RUNTIMES),
    "edgeseg.importing": (*TRAINING, "edgeseg.stream", "edgeseg.building"),
    "edgeseg.precision": TRAINING,
    "edgeseg.metrics": (*TRAINING, *RUNTIMES),
    "edgeseg.objects": (*TRAINING, *RUNTIMES),
    "edgeseg.evaluation": TRAINING,
    "edgeseg.stream.latency": (*TRAINING, *RUNTIMES),
    "edgeseg.report": (*TRAINING, *RUNTIMES),
    "edgeseg.benchmark": TRAINING,
    "edgeseg.data.borders": (*TRAINING, *RUNTIMES),
    "edgeseg.data.check": (*TRAINING, *RUNTIMES),
    "edgeseg.data.folders": (*TRAINING, *RUNTIMES),
    "edgeseg.data.instances": (*TRAINING, *RUNTIMES),
    "edgeseg.data.sample": (*TRAINING, *RUNTIMES),
    "edgeseg.data.sheet": (*TRAINING, *RUNTIMES),
    "edgeseg.models": ("onnx", *RUNTIMES),
    "edgeseg.errors": ("edgeseg", "numpy", "cv2"),
    "edgeseg.artifacts.files": ("numpy", "cv2", "pydantic"),
    "edgeseg.artifacts.card": ("numpy", "cv2"),
}
# __main__ is the command line by another name.
EXEMPT = {"edgeseg.__main__", "edgeseg.cli"}


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


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        module = module_name(path, root)
        if module in EXEMPT or module.startswith("edgeseg.cli."):
            continue
        banned = [
            name for part, names in FORBIDDEN.items() if within(module, part) for name in names
        ]
        found += [
            f"{module}:{line} imports {name}"
            for line, name in imports(path, root)
            if any(within(name, ban) for ban in banned)
        ]
    return found


def test_every_module_keeps_to_its_layer() -> None:
    assert not violations(PACKAGE)


def test_rules_name_parts_that_exist() -> None:
    modules = {module_name(path, PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert set(FORBIDDEN) <= modules


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
        ("a.py", "from . import cli", "edgeseg.cli"),
        ("a.py", "import importlib\nimportlib.import_module('edgeseg.cli')", "edgeseg.cli"),
        ("metrics.py", "from edgeseg.training import loop", "edgeseg.training.loop"),
        ("a.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import edgeseg.cli", "edgeseg.cli"),
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
        ("ops/a.py", "import torchless"),
        ("stream/a.py", "if TYPE_CHECKING:\n    import torch"),
        ("cli.py", "from edgeseg import cli"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, file: str, code: str) -> None:
    planted = tmp_path / "edgeseg" / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(code)
    assert not violations(tmp_path / "edgeseg")
