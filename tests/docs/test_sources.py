"""Links into the sources, by name."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pages import DOCS, PAGES, ROOT, name


@pytest.fixture(scope="module")
def sources() -> ModuleType:
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(DOCS / "extensions"))
    try:
        import sources
    finally:
        sys.path.pop(0)
    module: ModuleType = sources
    return module


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_page_points_to_is_there(page: Path, sources: ModuleType) -> None:
    targets = re.findall(r"\{(lines|test)\}`([^`]+)`", page.read_text("utf-8"))
    assert [target for _, target in targets if sources.find(target) is None] == []
    for role, target in targets:
        assert re.match(r"tests/\S+::(\w+\.)?test_" if role == "test" else "edgeseg/", target)


@pytest.mark.parametrize(
    ("target", "first", "last"),
    [
        ("edgeseg/models/fcn.py::FCN.forward", "    def forward(self", "        return _crop("),
        ("edgeseg/data/augment.py::ELASTIC_PIXELS", "ELASTIC_PIXELS = ", "ELASTIC_PIXELS = "),
        ("edgeseg/options/training.py::Augmentation.elastic", "    elastic: ", "    )"),
        ("edgeseg/data/augment.py::Augment.forward", "    @torch.no_grad()", "        )"),
    ],
)
def test_the_lines_are_those_of_the_name(
    target: str, first: str, last: str, sources: ModuleType
) -> None:
    place = sources.find(target)
    lines = (ROOT / place.path).read_text("utf-8").splitlines()
    assert lines[place.first - 1].startswith(first)
    assert lines[place.last - 1].startswith(last)


@pytest.mark.parametrize(
    "target",
    [
        "edgeseg/models/fcn.py::FCN.backward",
        "edgeseg/models/fcn.py::forward",
        "edgeseg/models/fcn.py::nn",
        "edgeseg/models/fcn.py",
        "edgeseg/models/none.py::FCN",
    ],
)
def test_what_is_not_there_is_not_found(target: str, sources: ModuleType) -> None:
    assert sources.find(target) is None


def test_a_page_with_a_wrong_name_does_not_build(tmp_path: Path) -> None:
    """As CI builds it, on a page of a line, and the same with a right name."""
    pytest.importorskip("sphinx")
    from sphinx.cmd.build import build_main

    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(DOCS / 'extensions')!r})\n"
        "extensions = ['myst_parser', 'sources']\nroot_doc = 'page'\n"
    )

    def build(line: str) -> int:
        (tmp_path / "page.md").write_text(f"# Page\n\n{line}\n")
        options = ("-q", "-E", "-W", "--keep-going", "-n")
        return build_main([*options, str(tmp_path), str(tmp_path / "out")])

    assert build("{lines}`edgeseg/models/fcn.py::FCN.backward`") != 0
    assert build("[a](page.md#nowhere)") != 0
    assert build("{lines}`edgeseg/models/fcn.py::FCN.forward`") == 0
    place = re.search(
        r'href="(sources/edgeseg/models/fcn\.py\.html)#(L-\d+)"',
        (tmp_path / "out" / "page.html").read_text(),
    )
    assert place
    assert f'id="{place[2]}"' in (tmp_path / "out" / place[1]).read_text()
