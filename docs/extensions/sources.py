r"""Roles that point into the sources, by name, so that no line number goes stale.

``{lines}`edgeseg/models/fcn.py::FCN.forward``` is a link to the lines of that function, class,
method or constant, ``{test}`tests/models/test_fcn.py::test_size_of_the_paper``` to those of a
test. They are found in the syntax tree at build time; a name that is not there is a warning.
A docstring's reference to what has no entry on the page of the API leads to its lines as well.
Each file that is pointed to becomes a page of its own, ``sources/PATH.html``.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

ROOT = Path(__file__).parents[2]
PAGES = "sources"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Lines of a file, from 1, both included."""

    path: str
    first: int
    last: int


def find(target: str) -> Place | None:
    """The place of ``PATH::NAME`` or ``PATH::CLASS.NAME``, None where there is no such thing."""
    path, _, name = target.partition("::")
    if not (ROOT / path).is_file():
        return None
    within: ast.AST = _tree(path)
    for part in name.split("."):
        found = next((node for node in ast.iter_child_nodes(within) if part in _names(node)), None)
        if found is None:
            return None
        within = found
    decorators = [each.lineno for each in getattr(within, "decorator_list", ())]
    return Place(path, min([within.lineno, *decorators]), within.end_lineno or within.lineno)


@cache
def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def _names(node: ast.AST) -> Iterator[str]:
    """What a statement binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    for target in getattr(node, "targets", None) or [getattr(node, "target", None)]:
        for leaf in ast.walk(target) if target is not None else ():
            if isinstance(leaf, ast.Name):
                yield leaf.id


class Lines(SphinxRole):
    """``FILE: NAME, lines FIRST–LAST``; of a test its name alone."""

    def __init__(self, *, short: bool = False) -> None:
        super().__init__()
        self.short = short

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The link, resolved when the page is written."""
        place = find(self.text)
        if place is None:
            logger.warning("no such code: %s", self.text, location=self.get_location())
            return [nodes.literal(self.text, self.text)], []
        path, _, name = self.text.partition("::")
        shown = name if self.short else f"{path.removeprefix('edgeseg/')}: {name}"
        where = "" if self.short else f", lines {place.first}–{place.last}"
        link = addnodes.pending_xref(
            "",
            nodes.inline("", "", nodes.literal(shown, shown), nodes.Text(where)),
            refdomain="",
            reftype="source",
            reftarget=f"{place.path}#L-{place.first}",
            refexplicit=True,
        )
        _pointed(self.env).add(place.path)
        return [link], []


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """The reference to the page of a file."""
    if node["reftype"] == "source":
        place = node["reftarget"]
    elif node.get("refdomain") == "py":
        place = _lines_of(env, node["reftarget"])
    else:
        place = None
    if place is None:
        return None
    path, _, anchor = place.partition("#")
    page = app.builder.get_relative_uri(node.get("refdoc", env.docname), f"{PAGES}/{path}")
    return nodes.reference("", "", content, internal=True, refuri=f"{page}#{anchor}")


def _lines_of(env: BuildEnvironment, name: str) -> str | None:
    """``PATH#L-LINE`` of a module, or of what a module defines, by its dotted name."""
    module, _, inner = name.rpartition(".")
    whole, holder = _file(name), _file(module)
    if whole is not None:
        place: Place | None = Place(whole, 1, 1)
    else:
        place = None if holder is None else find(f"{holder}::{inner}")
    if place is None:
        return None
    _pointed(env).add(place.path)
    return f"{place.path}#L-{place.first}"


def _file(module: str) -> str | None:
    parts = module.split(".")
    paths = ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"]))
    return next((path for path in paths if module and (ROOT / path).is_file()), None)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file that was pointed to."""
    for path in sorted(_pointed(app.env)):
        text = (ROOT / path).read_text("utf-8")
        code = app.builder.highlighter.highlight_block(
            text, "python", linenos="inline", lineanchors="L", anchorlinenos=True
        )
        yield f"{PAGES}/{path}", {"title": path, "body": f"<h1>{path}</h1>{code}"}, "page.html"


def _pointed(env: BuildEnvironment) -> set[str]:
    """Files that pages point to. It only grows; a full build forgets."""
    if not hasattr(env, "edgeseg_sources"):
        env.edgeseg_sources = set()
    files: set[str] = env.edgeseg_sources
    return files


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_role("lines", Lines())
    app.add_role("test", Lines(short=True))
    app.connect("missing-reference", resolve)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
