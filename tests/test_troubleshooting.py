"""The page on error messages: each class has its section, under its exit code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeseg import errors

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
OURS = PAGE.partition("## Words of other libraries")[0]
BASES = {"EdgesegError", "ArtifactError", "SourceError", "InferenceError"}
"""Classes of which mostly others are raised; they may have a section, too."""


def rows(text: str) -> dict[str, int]:
    """Section → how many messages it explains."""
    found: dict[str, int] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("### "):
            section = line[4:]
        elif line.startswith("| `"):
            found[section] = found.get(section, 0) + 1
    return found


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - BASES))
def test_each_class_has_its_section(name: str) -> None:
    assert rows(OURS).get(name), f"{name} has no section with a message"


def test_extras_that_are_named_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    named = set(re.findall(r"edgeseg\[([\w-]+)\]", PAGE))
    assert named
    for extra in named:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
