"""``edgeseg bench`` with reports and a budget, and ``edgeseg bench compare``, as they are run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks import rich_bench
from test_report_differences import moved

from edgeseg.benchmark.document import load_bench
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, UsageError


def test_one_run_writes_json_markdown_a_page_and_a_recommendation(
    edgeseg: Any, run_copy: Path, small_data: Path, tmp_path: Path
) -> None:
    outcome = edgeseg(
        *("bench", "runs/small/model.onnx", "runs/small/model.int8.onnx", "--data", small_data),
        *("--seconds", "0.1", "--budget", "10s", "--worst", "2"),
        *("--report", "r.html", "--report", "r.md", "--out", "r.json", "--json"),
    )
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert document["reports"] == ["r.html", "r.md"]
    kept = json.loads(Path("r.json").read_text())
    assert kept == {key: value for key, value in document.items() if key != "reports"}
    best = max(run["mean_iou"] for run in document["runs"])
    assert document["recommendation"]["chosen"]["mean_iou"] == best
    assert document["runs"][0]["network"]["size"] == [96, 64]
    assert document["runs"][0]["network"]["options"]["width"] == 8

    page = Path("r.html").read_text()
    assert "INT8" in outcome.err
    assert "INT8" in page
    chosen = document["recommendation"]["chosen"]["engine"]
    scores = next(entry for entry in document["accuracy"] if entry["engine"] == chosen)
    worst = sorted(scores["pictures"], key=lambda picture: (picture["iou"], picture["name"]))
    assert all(f"<h3>{picture['name']} " in page for picture in worst[:2])
    assert f"<h3>{worst[2]['name']} " not in page
    assert page.count("data:image/jpeg") == 8
    assert str(tmp_path) not in page
    assert "For a budget of 10s" in Path("r.md").read_text()
    # The confusion is that of the counts by picture.
    hits = [sum(picture["hits"][place] for picture in scores["pictures"]) for place in range(2)]
    assert [scores["confusion"][place][place] for place in range(2)] == hits


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--budget", "15"), "15ms or 66fps"),
        (("--budget", "15ms"), "needs labelled pictures"),
        (("--report", "r.pdf"), ".html or .md"),
    ],
)
def test_what_cannot_be_written_or_chosen_is_refused_before_the_measuring(
    arguments: tuple[str, ...], says: str, edgeseg: Any, tmp_path: Path
) -> None:
    # The engine is not there: it would be missed if anything were opened.
    outcome = edgeseg("bench", tmp_path / "none.onnx", *arguments, "--json")
    assert outcome.code == 2
    assert says in outcome.document["error"]["message"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A benchmark, and a later one in which the first engine is 13 % slower."""
    monkeypatch.chdir(tmp_path)
    bench = rich_bench()
    bench.save(Path("a.json"))
    runs = (moved(bench.runs[0], 1.13), *bench.runs[1:])
    bench.model_copy(update={"runs": runs}).save(Path("b.json"))
    return Path("a.json"), Path("b.json")


def test_compare_says_what_is_worse_and_fails_only_where_asked(
    edgeseg: Any, files: tuple[Path, Path]
) -> None:
    before, after = files
    outcome = edgeseg("bench", "compare", before, after, "--report", "c.html", "--report", "c.md")
    assert outcome.code == 0, outcome.err
    assert "latency slower: " in outcome.out
    assert "1 slower; " in outcome.out
    assert "slower" in Path("c.html").read_text()
    assert "slower" in Path("c.md").read_text()

    failed = edgeseg("bench", "compare", before, after, "--fail-on-regression", "--json")
    assert failed.code == 8
    assert failed.document["schema"] == "edgeseg.bench-compare/1"
    page = Path(__file__).parents[1].joinpath("docs/json.md").read_text("utf-8")
    (keys,) = re.findall(r"^\| `bench compare` \| `([a-z_ ]+)` \|$", page, re.MULTILINE)
    assert set(failed.document) == set(keys.split())
    assert len(failed.document["regressions"]) == 1
    assert "error: b.json is worse than a.json: nuclei: model.onnx, FP32" in failed.err

    back = edgeseg("bench", "compare", after, before, "--fail-on-regression")
    assert back.code == 0, back.err
    assert "faster" in back.out
    lenient = edgeseg(
        *("bench", "compare", before, after, "--fail-on-regression", "--threshold", "20")
    )
    assert lenient.code == 0


def test_a_gate_does_not_pass_what_cannot_be_compared(
    edgeseg: Any, files: tuple[Path, Path]
) -> None:
    rich_bench(pictures=3).save(Path("other.json"))
    told = edgeseg("bench", "compare", files[0], "other.json")
    assert told.code == 0
    assert "The two runs are not comparable." in told.out
    gated = edgeseg("bench", "compare", files[0], "other.json", "--fail-on-regression")
    assert gated.code == 3
    assert "pictures timed: 14, then 3" in gated.err


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (None, UsageError, "no such file"),
        ("", CorruptArtifact, "is empty"),
        ("not json", CorruptArtifact, "expected the JSON document of a benchmark"),
        ("[1]", CorruptArtifact, r"a\.json"),
        ('{"schema": "edgeseg.bench/1"}', MismatchedArtifact, "edgeseg.bench/1"),
        ('{"schema": "edgeseg.bench/2", "runs": NaN}', CorruptArtifact, r"a\.json"),
    ],
)
def test_what_is_no_benchmark_is_refused(
    text: str | None, error: type[Exception], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=says):
        load_bench(path)
