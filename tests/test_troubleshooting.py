"""The page on error messages: each class has its section, under its exit code."""

import re
from pathlib import Path

import pytest

from edgeseg import doctor, errors

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


def test_sections_are_under_the_exit_code_of_their_class() -> None:
    code = 0
    for line in OURS.splitlines():
        if match := re.match(r"## Exit (\d)", line):
            code = int(match[1])
        elif line.startswith("### "):
            assert getattr(errors, line[4:]).exit_code == code, line


def test_the_doctor_prints_what_the_page_shows() -> None:
    """Each … of the page stands for anything."""
    machine = ROOT / "tests/doctor/machines/orin-jetpack6-pip-opencv.json"
    printed = doctor.render(doctor.examine(doctor.read(machine)))
    shown = PAGE.partition("$ edgeseg doctor\n")[2].partition("```")[0].rstrip()
    assert shown.count("\n") > 8
    pieces = map(re.escape, re.split("…+", shown))
    assert re.fullmatch(".*".join(pieces), printed, re.DOTALL)


def test_extras_that_are_named_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    named = set(re.findall(r"edgeseg\[([\w-]+)\]", PAGE))
    assert named
    for extra in named:
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
