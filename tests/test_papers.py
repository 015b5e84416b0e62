"""The experiments of bench/papers: each runs, keeps what is finished, and judges as it says."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from cards import model_card
from graphs import onnx_network
from numpy.typing import NDArray
from scripts import BENCH, scripts

from edgeseg.artifacts.card import InputSpec, ModelCard
from edgeseg.data.folders import Split, load_instances, load_sample, read_split
from edgeseg.evaluation import evaluate
from edgeseg.models import build
from edgeseg.training.checkpoint import save_checkpoint

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
    "street",
    "pareto",
    "architectures",
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


def test_the_challenges_error_is_one_less_the_best_f_score(load: Load) -> None:
    script, rng = load("isbi"), np.random.default_rng(0)
    truths = rng.random((2, 5, 6)) < 0.8
    # Right at 0.5 less often than at a lower threshold.
    found = (0.5 * rng.random(truths.shape) + 0.3 * truths).astype(np.float32)
    assert script.challenge_error(truths, truths.astype(np.float32)) == 0

    def f_score(threshold: float) -> float:
        cells, said = (set(zip(*np.nonzero(a), strict=True)) for a in (truths, found > threshold))
        if not said:
            return 0.0
        precision, recall = len(cells & said) / len(said), len(cells & said) / len(cells)
        return 2 * precision * recall / (precision + recall) if cells & said else 0.0

    scores = [f_score(step / 10) for step in range(10)]
    assert max(scores) > scores[5]
    assert script.challenge_error(truths, found) == pytest.approx(1 - max(scores))


def test_turned_pictures_give_turned_probabilities(load: Load, tmp_path: Path) -> None:
    script = load("isbi")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (64, 64), np.uint8)
    mask = (rng.random((64, 64)) < 0.7).astype(np.uint8)
    for name, turns in (("a", 0), ("b", 1)):
        for part, values in (("images", pixels), ("masks", mask)):
            (tmp_path / "val" / part).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"val/{part}/{name}.png"), np.rot90(values, turns))
    options = {"width": 8, "depth": 2}
    grey = {"color": "gray", "mean": (0.5,), "std": (0.25,)}
    card = model_card(("membrane", "cell"), 64, 64, arch="unet", options=options, **grey)
    checkpoint = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    save_checkpoint(checkpoint, build("unet", 2, 1, **options), card)
    split = read_split(tmp_path, "val")
    truths, found = script.cells(checkpoint, split, script.ALL_ORIENTATIONS)
    np.testing.assert_array_equal(truths[: mask.size].reshape(mask.shape), mask == 1)
    first, second = found.reshape(2, 64, 64)
    np.testing.assert_allclose(second, np.rot90(first), atol=1e-5)
    first, second = script.cells(checkpoint, split, script.AS_IT_IS)[1].reshape(2, 64, 64)
    assert np.abs(second - np.rot90(first)).max() > 0.01


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
    errors = {"challenge_error_turned": (elastic, plain), "pixel_error": (0.1, 0.1)}
    return pair(*keys, **errors, f1=(0.8, 0.8))


def initialisation(error: float, other: float, least: float) -> list[dict[str, Any]]:
    keys = ("as in the paper", "PyTorch's initialisation", "without dropout")
    rows = pair(*(f"{key}, seed 0" for key in keys), pixel_error=(error, other, 0.09))
    return [row | {"deviations": (least, 1.5)} for row in rows]


def recipes(plain: float, elastic: float, few: float, taught: float) -> list[dict[str, Any]]:
    keys = ("plain", "elastic", "few labels", "few labels, taught")
    ious = (plain, elastic, few, taught)
    return pair(*(f"{key}, seed 0" for key in keys), mean_iou=ious)


def street(none: float, scaled: float) -> list[dict[str, Any]]:
    keys = ("plain", "no augmentation", "scales 0.5-2")
    return pair(*(f"{key}, seed 0" for key in keys), mean_iou=(0.6, none, scaled))


def shapes(depthwise: float) -> list[dict[str, Any]]:
    ious = (0.6, depthwise)
    figures = {"gflop": (9.0, 1.0), "p50_ms": (10.0, 5.0), "mean_iou": ious, "fp32_mean_iou": ious}
    return [row | {"budgets": []} for row in pair("width 16", "width 16, depthwise", **figures)]


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
        ("street", street(0.58, 0.62), True),
        ("street", street(0.58, 0.59), False),  # scales do harm
        ("street", street(0.61, 0.62), False),  # augmentation does
        ("architectures", shapes(0.58), True),
        ("architectures", shapes(0.57), False),  # it loses more than twice what the paper saw
    ],
)
def test_verdict(name: str, rows: Any, held: bool, load: Load) -> None:
    script = load(name)
    assert script.judge("gpu", rows).held is held
    assert script.judge("smoke", rows).held is None


def test_operators_are_what_runs_alone_with_all_that_it_reads_and_writes(load: Load) -> None:
    network = onnx_network(
        "float[N,3,8,6] image",
        "float[N,4,4,3] pooled",
        """conv = Conv <pads=[1,1,1,1]> (image, weight, bias)
        relu = Relu (conv)
        pooled = MaxPool <kernel_shape=[2,2], strides=[2,2]> (relu)""",
        weight=np.zeros((4, 3, 3, 3), np.float32),
        bias=np.zeros(4, np.float32),
    )
    network = onnx.shape_inference.infer_shapes(network)
    picture, weights, maps, pooled = 3 * 8 * 6, 4 * 3 * 3 * 3 + 4, 4 * 8 * 6, 4 * 4 * 3
    found = load("architectures").operators(network)
    assert found["operators"] == 2
    assert found["traffic"] == pytest.approx((picture + weights + maps + maps + pooled) / 1e6)


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
