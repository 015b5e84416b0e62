"""Learning rates: those of PyTorch's schedulers, as plain functions of the step."""

import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from edgeseg.options.training import Recipe
from edgeseg.training.learner import Course

STEPS = 37


def adamw() -> torch.optim.AdamW:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.01)


def theirs(name: str, steps: int) -> list[tuple[float, float]]:
    """Rate and beta1 for each step, and after the last, by PyTorch's own scheduler."""
    optimizer = adamw()
    schedulers = {
        "one-cycle": lambda: lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.01, total_steps=steps + 1, pct_start=0.2
        ),
        "poly": lambda: lr_scheduler.PolynomialLR(optimizer, total_iters=steps, power=0.9),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps),
    }
    scheduler = schedulers[name]()
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no step of the optimiser is taken
        for _ in range(steps + 1):
            group = optimizer.param_groups[0]
            seen.append((float(group["lr"]), group["betas"][0]))
            if len(seen) <= steps:
                scheduler.step()
    return seen


@pytest.mark.parametrize("steps", [STEPS, 3])
@pytest.mark.parametrize("name", ["one-cycle", "poly", "cosine"])
def test_equals_pytorch(name: str, steps: int) -> None:
    course = Course(Recipe(learning_rate=0.01, schedule=name), steps)  # type: ignore[arg-type]
    for step, (rate, beta1) in enumerate(theirs(name, steps)):
        assert course.learning_rate(step) == pytest.approx(rate, rel=1e-6, abs=1e-9)
        assert course.beta1(step) == pytest.approx(beta1, rel=1e-9)


def test_schedules_differ() -> None:
    rates = {name: [rate for rate, _ in theirs(name, STEPS)] for name in ("poly", "cosine")}
    assert rates["poly"] != pytest.approx(rates["cosine"], rel=1e-2)


@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_short_trainings_stay_within_the_peak(steps: int) -> None:
    """PyTorch's OneCycleLR divides by zero when its turn falls on the first of 4 steps."""
    for name in ("one-cycle", "poly", "cosine"):
        course = Course(Recipe(learning_rate=0.01, schedule=name), steps)  # type: ignore[arg-type]
        rates = [course.learning_rate(step) for step in range(steps + 1)]
        assert 0 <= min(rates) <= max(rates) <= 0.01
        assert rates[-1] < 1e-6
        assert rates[0] > 1e-4


def test_applies_to_the_optimiser() -> None:
    optimizer = adamw()
    course = Course(Recipe(learning_rate=0.01), STEPS)
    course.apply(optimizer, 5)
    group = optimizer.param_groups[0]
    assert group["lr"] == course.learning_rate(5)
    assert group["betas"] == (course.beta1(5), 0.999)
