"""The page on error messages: each one quoted is one of the source, and each class is covered."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from edgeseg import doctor, errors
from edgeseg.cli import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
OURS = PAGE.partition("## Words of other libraries")[0]


def template(node: ast.expr) -> str:
    """A string as it is printed, with … for what is not known before."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "…"


@cache
def sources() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text()) for path in (ROOT / "edgeseg").rglob("*.py"))


@cache
def templates() -> frozenset[str]:
    nodes = (node for tree in sources() for node in ast.walk(tree))
    strings = (ast.Constant, ast.JoinedStr, ast.BinOp)
    return frozenset(template(node) for node in nodes if isinstance(node, strings))


@cache
def raised() -> dict[str, frozenset[str]]:
    """Error class → the messages it is made with."""
    found: dict[str, set[str]] = {}
    for tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in errors.__all__ and node.args:
                found.setdefault(node.func.id, set()).add(template(node.args[0]))
    return {name: frozenset(messages) for name, messages in found.items()}


def matches(quoted: str, message: str) -> bool:
    """Whether the quoted text is that message, each … of it standing for anything."""
    pieces = map(re.escape, re.split("…+", quoted))
    return re.fullmatch(".*".join(pieces), message, re.DOTALL) is not None


def quoted(text: str) -> Iterator[tuple[str, str]]:
    """Section and message of each first cell that is one."""
    section = ""
    for line in text.splitlines():
        if line.startswith("### "):
            section = line[4:]
        elif line.startswith("| `"):
            yield section, line.split("`")[1].replace("\\|", "|")


QUOTED = list(quoted(OURS))


@pytest.mark.parametrize(("section", "message"), QUOTED)
def test_each_message_is_in_the_source(section: str, message: str) -> None:
    assert len(re.sub("[^a-zA-Z]", "", message)) >= 5, "too little to find it by"
    assert any(matches(message, known) for known in templates()), message


def test_a_message_that_was_reworded_would_be_noticed() -> None:
    assert matches("… holds no engine", "… holds no engine")
    assert not matches("… holds no engines", "… holds no engine")
    assert not matches("holds no engine", "… holds no engine")
    assert not any(matches("… contains no engine", known) for known in templates())


@pytest.mark.parametrize("name", sorted(raised()))
def test_each_class_has_its_section_with_a_message_of_its_own(name: str) -> None:
    messages = [message for section, message in QUOTED if section == name]
    assert messages, f"{name} has no section"
    assert any(matches(message, known) for message in messages for known in raised()[name])


def test_sections_are_under_the_exit_code_of_their_class() -> None:
    code = 0
    for line in OURS.splitlines():
        if match := re.match(r"## Exit (\d)", line):
            code = int(match[1])
        elif line.startswith("### "):
            assert getattr(errors, line[4:]).exit_code == code, line


def refused(command: str) -> str:
    """Why the command line does not take it; one that only lacks its files is taken."""
    name, *arguments = command.split()[1:]
    group = typer.main.get_command(app)
    with group.make_context("edgeseg", [name, *arguments]) as context:
        sub = group.commands.get(name)  # type: ignore[attr-defined]
        if sub is None:
            return f"no command {name}"
        try:
            sub.make_context(name, arguments, parent=context).close()
        except Exception as error:
            return "" if type(error).__name__ == "MissingParameter" else str(error)
    return ""


COMMANDS = sorted(set(re.findall(r"`(edgeseg [^`…]+)`", PAGE)))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_are_offered_parse(command: str) -> None:
    assert not refused(command)


def test_a_command_that_is_none_would_be_noticed() -> None:
    assert refused("edgeseg buidl --fp16")
    assert refused("edgeseg build --fp17")
    assert not refused("edgeseg infer")


def test_the_doctor_says_what_the_page_shows() -> None:
    machine = ROOT / "tests/doctor/machines/orin-jetpack6-pip-opencv.json"
    said = doctor.render(doctor.examine(doctor.read(machine)))
    shown = PAGE.partition("$ edgeseg doctor\n")[2].partition("```")[0]
    assert shown.count("\n") > 9
    assert matches(shown.rstrip(), said)


def test_links_and_extras_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    project = (ROOT / "pyproject.toml").read_text()
    for extra in set(re.findall(r"edgeseg\[([\w-]+)\]", PAGE)):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
