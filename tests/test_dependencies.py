"""What edgeseg is installed with: pinned for a repeatable environment, and its licences told."""

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from edgeseg.errors import RuntimeMissing, needed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PINS = dict(line.split("==") for line in LINES if not line.startswith("#"))


def rows() -> list[tuple[str, ...]]:
    """Cells of the tables of the page on licences."""
    lines = (ROOT / "docs" / "licences.md").read_text().splitlines()
    return [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in lines
        if line.startswith("|")
    ]


def asked(texts: list[str]) -> Iterator[Requirement]:
    for text in texts:
        requirement = Requirement(text)
        if requirement.name != PROJECT["name"]:
            yield requirement


DIRECT = [
    *((None, each) for each in asked(PROJECT["dependencies"])),
    *((extra, each) for extra, texts in EXTRAS.items() for each in asked(texts)),
]


@pytest.mark.parametrize(("extra", "requirement"), DIRECT, ids=str)
def test_licence_of_each_dependency_is_told(extra: str | None, requirement: Requirement) -> None:
    key = (requirement.name,) if extra is None else (extra, requirement.name)
    told = [row[len(key)] for row in rows() if row[: len(key)] == key]
    assert len(told) == 1
    assert told[0]


def test_every_extra_and_image_is_told() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    assert not [extra for extra in EXTRAS if f"`{extra}`" not in page and f"| {extra} " not in page]
    images = (ROOT / "docs" / "deploy").glob("*.Dockerfile")
    assert not [each.name for each in images if f"deploy/{each.name})" not in page]


def installed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Add to ``seen`` all that an installed distribution requires on this machine."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in extras or {""}
        ):
            installed(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


@pytest.mark.parametrize("library", ["kornia", "kornia.augmentation"])
def test_a_missing_library_is_named_with_its_extra(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    says = "^augmentation needs kornia, which is not installed$"
    with pytest.raises(RuntimeMissing, match=says) as caught, needed("augmentation needs", "train"):
        importlib.import_module(library)
    assert caught.value.hint == "pip install 'edgeseg[train]'"


def test_a_library_that_cannot_be_imported_is_named_with_the_reason() -> None:
    broken = ImportError("libGL.so.1: cannot open shared object file")
    with (
        pytest.raises(RuntimeMissing, match="^a window needs libGL"),
        needed("a window needs", "x"),
    ):
        raise broken


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="constraints are those of Python 3.11")
def test_all_that_is_installed_with_edgeseg_is_pinned() -> None:
    seen: set[tuple[str, frozenset[str]]] = set()
    installed("edgeseg", frozenset({"test"}), seen)
    names = {name for name, _ in seen} - {"edgeseg"}
    assert len(names) > 100
    # Those of a CUDA build are pinned by PyTorch itself.
    assert not {name for name in names if name not in PINS and not name.startswith("nvidia-")}


def test_pins_are_within_the_ranges_of_the_project() -> None:
    for _, requirement in DIRECT:
        pin = PINS.get(canonicalize_name(requirement.name))
        assert pin is None or requirement.specifier.contains(pin), requirement


def test_pins_are_of_no_build_for_one_machine() -> None:
    assert not [name for name, pin in PINS.items() if Version(pin).local]
