"""The page that explains the document names the keys that the document has."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from edgeseg.artifacts.sidecar import GateResult
from edgeseg.benchmark.budget import BudgetRow, Recommendation
from edgeseg.benchmark.comparison import ComparedRow, Comparison, FigureChange, Side
from edgeseg.benchmark.conditions import Conditions, During, GpuState, Temperature
from edgeseg.benchmark.document import (
    BenchReport,
    BlockSeries,
    DataSummary,
    EngineAccuracy,
    NetworkSummary,
    PictureScore,
    Run,
    SequenceSummary,
)
from edgeseg.benchmark.energy import EnergyMeter, Sensor
from edgeseg.machine import Gpu, Machine
from edgeseg.options.benchmark import BenchConfig, CompareConfig

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text("utf-8")
MODELS = {
    "Document": BenchReport,
    "Run": Run,
    "Network": NetworkSummary,
    "Block": BlockSeries,
    "Gate": GateResult,
    "Accuracy": EngineAccuracy,
    "Picture": PictureScore,
    "Data": DataSummary,
    "Sequence": SequenceSummary,
    "Machine": Machine,
    "GPU": Gpu,
    "Conditions": Conditions,
    "Temperature": Temperature,
    "GPU state": GpuState,
    "During": During,
    "Energy": EnergyMeter,
    "Sensor": Sensor,
    "Config": BenchConfig,
    "Recommendation": Recommendation,
    "Candidate": BudgetRow,
    "Comparison": Comparison,
    "Thresholds": CompareConfig,
    "Side": Side,
    "Compared row": ComparedRow,
    "Change": FigureChange,
}


def keys_of(model: type) -> list[str]:
    """As JSON has them, in order."""
    if is_dataclass(model):
        return [field.name for field in fields(model)]
    return [field.alias or name for name, field in model.model_fields.items()]  # type: ignore[attr-defined]


def sections(page: str) -> dict[str, list[str]]:
    """Heading of the third level → first cells of its table."""
    parts = re.split(r"^### (.+)\n", page, flags=re.MULTILINE)[1:]
    return {
        heading: re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize("heading", MODELS)
def test_the_page_explains_each_key_in_order(heading: str) -> None:
    assert sections(PAGE)[heading] == keys_of(MODELS[heading])


def test_every_table_is_of_a_model() -> None:
    assert sections(PAGE).keys() == MODELS.keys()


def test_a_key_that_the_page_lacks_is_seen() -> None:
    without = PAGE.replace("| `speedup` |", "| `speed` |")
    assert sections(without)["Run"] != keys_of(Run)
