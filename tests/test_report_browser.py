"""The pages in a browser: nothing is fetched, nothing is cut off on a phone, dark is dark."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks import rich_bench
from test_report_bench import worst_of, write

from edgeseg.benchmark.compare import compare
from edgeseg.options.benchmark import CompareConfig
from edgeseg.report.differences import write_comparison

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    bench = rich_bench(noisy=True, why=("Others were at work.",))
    write(folder, bench, worst=worst_of(bench), commands=["edgeseg bench " + "runs/n " * 40])
    found = compare(rich_bench(), bench, CompareConfig(resamples=100), ("a.json", "b.json"))
    write_comparison(folder / "compare.html", found)
    return {"report": folder / "report.html", "comparison": folder / "compare.html"}


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_page_fits_a_phone_and_asks_for_nothing(
    name: str, pages: dict[str, Path], browser: Any
) -> None:
    with browser.new_context(viewport=PHONE, offline=True) as context:
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("request", lambda request: asked.append(request.url[:40]))
        page.goto(pages[name].as_uri())
        # Nothing moves the page sideways; wide tables may scroll in their own box.
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        small = "e => parseFloat(getComputedStyle(e).fontSize)"
        assert min(page.eval_on_selector_all("td, li, p", f"all => all.map({small})")) >= 12
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_page_that_would_load_something_is_held_back_by_its_own_policy(
    pages: dict[str, Path], browser: Any, tmp_path: Path
) -> None:
    planted = '<script>document.title = "ran"</script><img src="https://example.invalid/a.png">'
    text = pages["report"].read_text().replace("<main>", f"<main>{planted}")
    (tmp_path / "planted.html").write_text(text)
    with browser.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto((tmp_path / "planted.html").as_uri())
        assert page.title() != "ran"
        assert sum("Content Security Policy" in text for text in said) == 2


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_a_page_follows_the_reader_s_colour_scheme(
    scheme: str, bright: bool, pages: dict[str, Path], browser: Any
) -> None:
    with browser.new_context(color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(pages["report"].as_uri())
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(colour.removeprefix("rgb(").split(",")[0]) > 128) is bright
        # On paper it is always light.
        page.emulate_media(media="print")
        printed = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert printed == "rgb(255, 255, 255)"
