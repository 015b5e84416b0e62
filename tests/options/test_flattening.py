"""Options declared once: what a command line gives is what Python gets, and back."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.main import get_command

from edgeseg.cli import make_app
from edgeseg.cli.flattening import flat
from edgeseg.errors import UsageError
from edgeseg.options.base import Option, Options, Setting, settings, words
from edgeseg.options.building import BuildConfig, GateLimits, PlanOptions
from edgeseg.options.streaming import StreamOptions
from edgeseg.options.training import Augmentation, Recipe, TrainConfig

NETWORK = Path("model.onnx")


def configured(*arguments: str) -> BuildConfig:
    """The configuration that a command line of ``build`` makes."""
    seen: list[BuildConfig] = []
    own = typer.Typer()

    @own.command()
    @flat
    def build(configure: Callable[..., BuildConfig]) -> None:
        seen.append(configure(onnx=NETWORK, precision="int8"))

    get_command(own).main(list(arguments), standalone_mode=False)
    return seen[0]


CONFIGS = [
    {},
    {"runtime": "tensorrt-rtx", "ranges": Path("r.json"), "split": "test"},
    {"keep": ("a*", "b c"), "quantise": ("d",), "auto_mixed": True},
    {"max_drop": 0.005, "min_agreement": 0.5, "max_class_drop": None},
    {"max_class_drop": 0.07, "foreign": Path("theirs.onnx")},
    {
        "plan": PlanOptions(
            targets=("sm_86", "sm_89"),
            batch=(1, 2, 8),
            sizes=((64, 96), (64, 96), (128, 192)),
            workspace_mib=64,
            optimisation_level=0,
            timing_cache=Path("times"),
            dla_core=0,
            gpu_fallback=False,
            hardware_compatibility="same",
            tf32=False,
        )
    },
]


@pytest.mark.parametrize("given", CONFIGS)
def test_the_words_of_a_configuration_make_it_again(given: dict[str, Any]) -> None:
    config = BuildConfig(NETWORK, "int8", **given)
    assert configured(*words(config)) == config


def _kinds() -> Iterator[type[Options]]:
    waiting = Options.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        yield kind


def test_every_option_of_the_dataclasses_is_on_a_command_line() -> None:
    commands = list(get_command(make_app()).commands.values())  # type: ignore[attr-defined]
    for group in commands:  # which grows by the commands of groups
        commands += getattr(group, "commands", {}).values()
    flags = {flag for command in commands for each in command.params for flag in each.opts}
    declared = {
        setting.flag for kind in _kinds() for setting in settings(kind).values() if setting.option
    }
    assert {"--rotate", "--runtime", "--mode", "--epochs"} <= declared
    assert declared <= flags


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        (StreamOptions, {"mode": "fast"}, "mode: Input should be 'latency' or 'throughput'"),
        (StreamOptions, {"batch": 0}, "batch: Input should be greater than or equal to 1"),
        (StreamOptions, {"duration": float("nan")}, "duration: Input should be greater than 0"),
        (StreamOptions, {"opacity": 1.5}, "opacity: Input should be less than or equal to 1"),
        (PlanOptions, {"optimisation_level": 6}, "optimisation_level: "),
        (PlanOptions, {"batch": (8, 1, 1)}, "smallest <= typical <= largest"),
        (GateLimits, {"max_drop": 2}, "max_drop: "),
    ],
)
def test_python_refuses_what_the_command_line_refuses(
    kind: type[Options], change: dict[str, Any], says: str
) -> None:
    kind()
    with pytest.raises(UsageError) as refused:
        kind(**change)
    assert says in refused.value.message


def test_defaults_need_no_check() -> None:
    make_app()  # which imports all kinds
    fields = [setting for kind in _kinds() for setting in settings(kind).values()]
    given = [each for each in fields if each.default is not dataclasses.MISSING]
    assert len(given) > 150
    for each in given:
        checked = each.adapter.validate_python(each.default)
        assert (type(checked), checked) == (type(each.default), each.default), each.name


def test_an_error_names_the_option_as_it_was_typed() -> None:
    with pytest.raises(UsageError, match=r"^--batch: expected SMALLEST:TYPICAL:LARGEST"):
        configured("--batch", "8")


def test_one_name_is_one_option_of_all_that_have_it() -> None:
    seen: list[Any] = []
    own = typer.Typer()

    @own.command()
    @flat
    def train(recipe: Recipe, configure: Callable[..., TrainConfig]) -> None:
        seen.extend([recipe, configure(run=Path("run"))])

    get_command(own).main(["--data", "d", "--epochs", "3"], standalone_mode=False)
    assert seen[0] == Recipe(epochs=3)
    assert seen[1] == TrainConfig(Path("d"), Path("run"), recipe=Recipe(epochs=3))


def test_choices_of_a_help_are_those_of_the_type() -> None:
    build = get_command(make_app()).commands["build"]  # type: ignore[attr-defined]
    (runtime,) = (each for each in build.params if each.name == "runtime")
    (field,) = (each for each in dataclasses.fields(BuildConfig) if each.name == "runtime")
    hint = settings(BuildConfig)[field.name].type
    context = typer.Context(build)
    for choice in get_args(hint):
        assert runtime.process_value(context, choice) == choice
    with pytest.raises(typer.BadParameter):
        runtime.process_value(context, "cuda")


def test_a_field_without_an_option_is_for_python_alone() -> None:
    assert settings(Augmentation)["blur"].option is None
    assert Setting("a", int, 1).words(2) == []
    assert Option("Help.").parse is None
