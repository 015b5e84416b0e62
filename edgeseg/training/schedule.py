"""Learning-rate schedules, as pure functions of training progress."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from edgeseg.options.training import Recipe

WARM_UP = 0.2
"""Fraction of a one-cycle training in which the learning rate rises."""
POWER = 0.9
"""Exponent of the polynomial schedule; 0.9 as in ParseNet and DeepLab."""
BETA1, BETA1_AT_PEAK, BETA1_AT_REST = 0.9, 0.85, 0.95
"""First-moment decay of AdamW: constant, or in one-cycle at and away from the peak."""


@dataclass(frozen=True)
class Course:
    """Learning rate and momentum for each step of a training.

    Both depend on the step alone, so a resumed training needs no scheduler state.

    Attributes:
        recipe: Recipe with the schedule's name and peak learning rate.
        steps: Number of steps in the whole training.
    """

    recipe: Recipe
    steps: int

    def learning_rate(self, step: int) -> float:
        """Return the learning rate for a step, counted from 0; constant after the last step.

        ``one-cycle``: from 1/25 of the peak up to it, then down to almost zero, along cosines;
        Smith and Topin, "Super-Convergence" (2018). ``poly``: ``(1 - progress) ** 0.9``; Liu,
        Rabinovich and Berg, "ParseNet" (2015). ``cosine``: half a wave without restarts;
        Loshchilov and Hutter, "SGDR" (ICLR 2017).
        """
        peak, progress = self.recipe.learning_rate, step / self.steps
        if self.recipe.schedule == "poly":
            return float(peak * max(0.0, 1 - progress) ** POWER)
        if self.recipe.schedule == "cosine":
            return _cosine(peak, 0, min(1.0, progress))
        start = peak / 25
        return self._cycle(step, start, peak, start / 1e4)

    def beta1(self, step: int) -> float:
        """AdamW's first-moment decay; with one-cycle it is low when the learning rate is high."""
        if self.recipe.schedule != "one-cycle":
            return BETA1
        return self._cycle(step, BETA1_AT_REST, BETA1_AT_PEAK, BETA1_AT_REST)

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set learning rate and momentum of an AdamW-like optimiser for a step, counted from 0.

        A group's ``rate`` multiplies its learning rate.
        """
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * group.get("rate", 1.0)
            group["betas"] = (self.beta1(step), group["betas"][1])

    def _cycle(self, step: int, start: float, peak: float, end: float) -> float:
        # The peak may fall between two steps, or before the first, as in torch's OneCycleLR.
        turn = WARM_UP * (self.steps + 1) - 1
        if step < turn:
            return _cosine(start, peak, step / turn)
        return _cosine(peak, end, min(1.0, (step - turn) / (self.steps - turn)))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))
