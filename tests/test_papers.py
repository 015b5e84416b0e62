"""The experiments of bench/papers: each runs, keeps what is finished, and judges as it says."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scripts import BENCH, scripts

from edgeseg.artifacts.card import InputSpec, ModelCard
from edgeseg.data.folders import Split, load_instances, load_sample, read_split
from edgeseg.evaluation import evaluate

PAPERS = BENCH / "papers"
EXPERIMENTS = (
    "dense",
    "fcn",
    "camvid",
    "borders",
    "tiles",
    "skips",
    "upsampling",
    "little_data",
    "isbi",
    "initialisation",
    "recipes",
    "pareto",
)

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def load() -> Iterator[Load]:
    """Import a script of bench/papers as it sees itself: beside the others."""
    with scripts("papers") as load:
        yield load


@pytest.fixture
def common(load: Load) -> ModuleType:
    return load("common")


@pytest.fixture
def lab(common: ModuleType, tmp_path: Path) -> Callable[..., Any]:
    """Make a laboratory of a small experiment that writes to ``tmp_path``."""
    experiment = common.Experiment(
        "small", "Small", "Nobody 2000", "More is more.", (common.Column("f", "F"),), None
    )

    def make(scale: str = "smoke") -> Any:
        options = ["--scale", scale, "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
        return common.Lab(experiment, common._options(experiment, options))

    return make


def document(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return found


@pytest.mark.usefixtures("no_run_plots")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_runs(name: str, load: Load, tmp_path: Path) -> None:
    arguments = ["--scale", "smoke", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    load(name).main(arguments)
    found = document(tmp_path, name)
    assert found["schema"] == "edgeseg.paper/1"
    assert found["name"] == name
    assert found["outcome"]["held"] is None  # nothing can be read from a training of seconds
    assert found["rows"]
    assert found["machine"]["cpu"]
    assert {"created", "commit", "seeds", "settings", "seconds", "device"} <= found.keys()
    for column in found["columns"]:
        assert any(column["key"] in row for row in found["rows"]) or column["key"].startswith(
            "test_"
        ), column
    picture = cv2.imread(str(tmp_path / f"{name}.png"))
    assert picture is not None
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


@pytest.mark.usefixtures("no_run_plots")
def test_a_second_run_keeps_the_rows_of_the_first(
    load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--scale", "smoke", "--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    load("skips").main(arguments)
    found = document(tmp_path, "skips")
    capsys.readouterr()
    load("skips").main(arguments)
    assert document(tmp_path, "skips")["rows"] == found["rows"]
    assert capsys.readouterr().err.count("is kept from") == len(found["rows"])


def test_numpy_values_are_numbers_in_the_document(
    common: ModuleType, lab: Callable[..., Any], tmp_path: Path
) -> None:
    """As strings they would be no verdict and no figure for the page."""
    small = lab()
    small.row("a", {"seed": 0}, lambda: {"f": np.float32(0.5), "n": np.int64(3)})
    small.finish(common.Outcome("Seen.", np.bool_(True), "Small."))
    found = document(tmp_path, "small")
    assert found["outcome"]["held"] is True
    assert (found["rows"][0]["f"], found["rows"][0]["n"]) == (0.5, 3)


def test_interruption_loses_one_row(lab: Callable[..., Any], tmp_path: Path) -> None:
    made: list[str] = []

    def measure(key: str, *, stop: bool = False) -> Callable[[], dict[str, float]]:
        def make() -> dict[str, float]:
            if stop:
                raise KeyboardInterrupt
            made.append(key)
            return {"f": 0.5}

        return make

    first = lab()
    first.row("a", {"seed": 1}, measure("a"))
    with pytest.raises(KeyboardInterrupt):
        first.row("b", {"seed": 2}, measure("b", stop=True))
    unfinished = document(tmp_path, "small")
    assert [row["key"] for row in unfinished["rows"]] == ["a"]
    assert unfinished["outcome"] is None

    second = lab()
    second.row("a", {"seed": 1}, measure("a"))
    second.row("b", {"seed": 2}, measure("b"))
    assert made == ["a", "b"]


def test_row_of_other_settings_is_made_again(lab: Callable[..., Any]) -> None:
    lab().row("a", {"epochs": 1}, lambda: {"f": 0.1})
    assert lab().row("a", {"epochs": 2}, lambda: {"f": 0.2})["f"] == 0.2


def test_row_older_than_what_it_builds_on_is_made_again(lab: Callable[..., Any]) -> None:
    old = lab()
    base = old.row("base", {}, lambda: {"f": 0.1})
    old.row("next", {}, lambda: {"f": 0.2}, base)
    assert lab().row("next", {}, lambda: {"f": 0.3}, base)["f"] == 0.2
    newer = base | {"finished": "2999-01-01T00:00:00+00:00"}
    assert lab().row("next", {}, lambda: {"f": 0.3}, newer)["f"] == 0.3


def test_results_of_another_scale_are_not_replaced(
    load: Load, lab: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab().row("a", {}, lambda: {"f": 0.1})
    (tmp_path / "small.json").rename(tmp_path / "skips.json")
    held = (tmp_path / "skips.json").read_text("utf-8")
    data = load("common").bundled_sample()
    with pytest.raises(SystemExit) as ended:
        load("skips").main(["--scale", "cpu", "--data", str(data), "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "holds results of the scale smoke" in capsys.readouterr().err
    assert (tmp_path / "skips.json").read_text("utf-8") == held


class Shifted:
    """An engine that knows the truth and gives it moved to the right: wrong at borders alone."""

    path = Path("shifted")

    def __init__(self, split: Split, pixels: int) -> None:
        self.card = ModelCard(
            name="shifted", arch="none", classes=split.classes, input=InputSpec(height=64, width=64)
        )
        pairs = (load_sample(sample, split.classes) for sample in split)
        self.labels = {
            image.tobytes(): np.roll(mask, pixels, axis=1) * (np.arange(mask.shape[1]) >= pixels)
            for image, mask in pairs
        }

    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self.labels[image.tobytes()].astype(np.uint8)


def test_measures_are_those_of_the_evaluation(load: Load, small_data: Path) -> None:
    split = read_split(small_data, "val")
    engine: Any = Shifted(split, 5)
    figures = load("measures").measure(engine, split)
    expected = evaluate(engine, split).to_dict()
    for name in ("mean_iou", "pixel_accuracy", "mean_accuracy"):
        assert figures[name] == expected[name]
    objects: Any = expected["objects"]
    assert 0 < figures["f1"] < 1
    for name in ("f1", "merges", "splits", "count_error"):
        assert figures[name] == objects[name]
    assert figures["bands"]["1"] < figures["bands"]["16"] < figures["pixel_accuracy"] < 1
    assert figures["border_accuracy"] == figures["bands"]["4"]


def test_cells_are_the_connected_pieces_of_a_mask(load: Load, tmp_path: Path) -> None:
    mask = np.ones((20, 30), np.uint8)
    mask[:, 10] = mask[:, 20] = 0
    for split in ("train", "val"):
        for part, pixels in (("images", mask * 200), ("masks", mask)):
            (tmp_path / split / part).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / part / "a.png"), pixels)
    (sample,) = read_split(load("isbi").with_cells(tmp_path), "val")
    ids = load_instances(sample)
    assert len(np.unique(ids[mask > 0])) == 3
    assert not ids[mask == 0].any()


def fcn_rows(*ious: float) -> dict[str, dict[str, Any]]:
    keys = ("fcn32s", "fcn16s", "fcn8s", "fcn32s, longer")
    return {
        key: {"key": key, "mean_iou": iou, "border_mean_iou": iou / 2}
        for key, iou in zip(keys, ious, strict=True)
    }


def pair(*names: str, **figures: tuple[float, ...]) -> list[dict[str, Any]]:
    settings = {"pictures": {"train": 9, "val": 3}}
    return [
        {"key": name, "truths": 9, "settings": settings}
        | {key: values[place] for key, values in figures.items()}
        for place, name in enumerate(names)
    ]


def little(*ious: float) -> list[dict[str, Any]]:
    return [{"mean_iou": iou, "settings": {"pictures": {"train": 3}}} for iou in ious]


def skips(iou: float, border: float) -> list[dict[str, Any]]:
    return pair(
        *("with skips, seed 0", "without skips, seed 0"),
        mean_iou=(0.8, iou),
        border_accuracy=(0.8, border),
        pixel_accuracy=(0.9, 0.85),
        f1=(0.8, 0.7),
    )


def ways(*ious: float) -> list[dict[str, Any]]:
    keys = ("bilinear, seed 0", "deconvolution, seed 0", "unpooling, seed 0")
    return pair(*keys, mean_iou=ious, border_accuracy=ious)


def borders(merges: float, f1: float) -> list[dict[str, Any]]:
    keys = ("without map, seed 0", "with map, seed 0")
    return pair(*keys, merges=(5, merges), f1=(0.8, f1))


def isbi(elastic: float, plain: float) -> list[dict[str, Any]]:
    keys = ("elastic, seed 0", "not elastic, seed 0")
    return pair(*keys, pixel_error=(elastic, plain), f1=(0.8, 0.8))


def initialisation(error: float, other: float, least: float) -> list[dict[str, Any]]:
    keys = ("as in the paper", "PyTorch's initialisation", "without dropout")
    rows = pair(*(f"{key}, seed 0" for key in keys), pixel_error=(error, other, 0.09))
    return [row | {"deviations": (least, 1.5)} for row in rows]


def recipes(plain: float, elastic: float, few: float, taught: float) -> list[dict[str, Any]]:
    keys = ("plain", "elastic", "few labels", "few labels, taught")
    ious = (plain, elastic, few, taught)
    return pair(*(f"{key}, seed 0" for key in keys), mean_iou=ious)


@pytest.mark.parametrize(
    ("name", "rows", "held"),
    [
        ("fcn", fcn_rows(0.3, 0.4, 0.5, 0.4), True),
        ("fcn", fcn_rows(0.3, 0.5, 0.4, 0.35), False),  # not rising
        ("fcn", fcn_rows(0.3, 0.4, 0.5, 0.6), False),  # the epochs alone do more
        ("borders", borders(3, 0.9), True),
        ("borders", borders(6, 0.9), False),
        ("borders", borders(3, 0.7), False),
        ("skips", skips(0.7, 0.7), True),
        ("skips", skips(0.7, 0.78), False),  # borders lose less than the whole
        ("skips", skips(0.9, 0.7), False),
        ("upsampling", ways(0.80, 0.81, 0.79), True),
        ("upsampling", ways(0.80, 0.81, 0.77), False),  # one is far behind
        ("little_data", little(0.5, 0.4, 0.3, 0.2), True),
        ("little_data", little(0.4, 0.5, 0.3, 0.2), False),  # augmentation does harm
        ("little_data", little(0.5, 0.4, 0.3, 0.45), False),  # scratch wins
        ("isbi", isbi(0.05, 0.06), True),
        ("isbi", isbi(0.06, 0.05), False),
        ("isbi", isbi(0.07, 0.08), False),  # the paper's figure is missed
        ("initialisation", initialisation(0.08, 0.1, 0.4), True),
        ("initialisation", initialisation(0.08, 0.07, 0.6), False),  # PyTorch's is better
        ("initialisation", initialisation(0.1, 0.11, 0.6), False),  # dropout does harm
        ("initialisation", initialisation(0.08, 0.1, 0.3), False),  # maps vanish
        ("recipes", recipes(0.8, 0.81, 0.6, 0.7), True),
        ("recipes", recipes(0.8, 0.79, 0.6, 0.7), False),  # one part does harm
        ("recipes", recipes(0.8, 0.81, 0.6, 0.6), False),  # the teacher adds nothing
        ("camvid", [{"key": "w", "parameters": 1.8, "mean_iou": 0.5}], True),
        ("camvid", [{"key": "w", "parameters": 1.8, "mean_iou": 0.4}], False),
    ],
)
def test_verdict(name: str, rows: Any, held: bool, load: Load) -> None:
    script = load(name)
    assert script.judge("gpu", rows).held is held
    assert script.judge("smoke", rows).held is None


class TestReport:
    def finished(self, common: ModuleType, lab: Any, held: bool | None = True) -> None:
        lab.row("a", {"seed": 3}, lambda: {"f": 0.1234})
        lab.finish(common.Outcome("Rows | pipes.", held, "Small."))

    def test_page_states_claim_figures_and_verdict(
        self, common: ModuleType, load: Load, lab: Callable[..., Any], tmp_path: Path
    ) -> None:
        self.finished(common, lab())
        load("report").main(["--results", str(tmp_path), "--out", str(tmp_path / "R.md")])
        page = (tmp_path / "R.md").read_text("utf-8")
        assert "More is more." in page
        assert "The claim **held**" in page
        assert "| a | 12.3 |" in page
        assert "Rows \\| pipes." in page
        assert "](./small.png)" in page
        assert "seed 3" in page

    def test_committed_page_is_that_of_the_committed_results(self, load: Load) -> None:
        report = load("report")
        if not list((PAPERS / "results").glob("*.json")):
            pytest.skip("no results are committed")
        page = (PAPERS / "RESULTS.md").read_text("utf-8")
        assert page == report.render(report.read(PAPERS / "results"), "results")
