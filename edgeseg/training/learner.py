"""The training step: network, averaged weights, optimiser, learning rate and gradient scaling."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeseg.artifacts.card import ModelCard
from edgeseg.data.augment import Augment
from edgeseg.data.loader import Batch
from edgeseg.errors import NonFiniteOutput
from edgeseg.models.mirror import same_size
from edgeseg.options.training import Autocast, Recipe
from edgeseg.training.distributed import Processes
from edgeseg.training.finite import listed, non_finite
from edgeseg.training.losses import SegmentationLoss
from edgeseg.training.teacher import Teacher, distillation

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


AVERAGE_POWER = 6.94
"""Exponent of the running mean of the weights, which spans about an eighth of the steps so far."""


@dataclass
class Learner:
    """A network in training, with its optimiser and averaged weights.

    Attributes:
        model: The bare network.
        forward: Maps pictures to logits of the same size; gradients are averaged over processes.
        average: Running mean of the network's weights, which is validated and saved.
        optimizer: AdamW.
        scaler: Gradient scaler for float16.
        loss: Loss over the global batch.
        augment: Augmentation of batches, None for none.
        autocast: dtype of the forward pass, None for float32.
        clip_norm: Maximum gradient norm, None for no clipping.
        teacher: Trained network to learn from, None for labels alone.
    """

    model: nn.Module
    forward: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    course: Course
    loss: SegmentationLoss
    augment: Augment | None
    autocast: torch.dtype | None
    processes: Processes
    clip_norm: float | None = None
    teacher: Teacher | None = None
    step: int = 0

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device

    def run_epoch(
        self, loader: Iterable[Batch], passes: int, epoch: int
    ) -> tuple[float, float | None]:
        """Train on all batches, with ``passes`` batches per step.

        Returns:
            The mean loss, and the mean gradient norm or None if every step was skipped.

        Raises:
            NonFiniteOutput: The loss or a gradient is NaN or infinite. The step is not applied.
        """
        self.model.train()
        losses, norms = [], []
        batches = iter(loader)
        while step := [self._prepared(batch) for batch in itertools.islice(batches, passes)]:
            loss, norm = self._learn(step, epoch)
            losses.append(loss)
            if math.isfinite(norm):
                norms.append(norm)
        return sum(losses) / len(losses), sum(norms) / len(norms) if norms else None

    def diverged(self, epoch: int, step: Iterable[Batch] = ()) -> NonFiniteOutput:
        """The error for a loss or logit that is not finite."""
        rate = self.course.learning_rate(self.step)
        if not all(bool(torch.isfinite(batch.pictures).all()) for batch in step):
            reason = "the augmented pictures hold NaN or infinity"
        elif not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            reason = f"the last step at a learning rate of {rate:.2g} made the weights infinite"
        else:
            reason = f"the logits overflowed at a learning rate of {rate:.2g}"
        return NonFiniteOutput(
            f"the training diverged in epoch {epoch}: {reason}",
            hint="train again with a lower --learning-rate" + _kept(epoch),
        )

    def _prepared(self, batch: Batch) -> Batch:
        batch = batch.to(self.device)
        if self.augment is not None:
            batch = self.augment(batch)
        pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
        batch = batch._replace(pictures=pictures, masks=batch.masks.long())
        if self.teacher is not None:
            with self._autocast():
                batch = self.teacher.teach(batch)
        return batch

    def _learn(self, step: Sequence[Batch], epoch: int) -> tuple[float, float]:
        """Do one optimiser step on several batches; return their loss and the gradient norm."""
        self.course.apply(self.optimizer, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        labelled = self.loss.labelled(batch.masks for batch in step)
        total = 0.0
        for number, batch in enumerate(step, 1):
            with self._gradients(complete=number == len(step)):
                loss = self._loss(batch, labelled, passes=len(step))
                total += float(loss.detach())
                if not math.isfinite(total):
                    raise self.diverged(epoch, step)
                # DDP averages gradients over the processes, but the loss is a sum.
                self.scaler.scale(loss * self.processes.count).backward()
        norm = self._checked_norm(epoch)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.model)
        self.step += 1
        return total, norm

    def _checked_norm(self, epoch: int) -> float:
        """Clip the gradients and return their norm, infinite if float16 skips the step.

        Raises:
            NonFiniteOutput: A gradient is NaN or infinite, and a smaller scale would not help.
        """
        self.scaler.unscale_(self.optimizer)
        named = [(n, p) for n, p in self.model.named_parameters() if p.grad is not None]
        parameters = [parameter for _, parameter in named]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if bool(torch.isfinite(norm)):
            if self.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
            return float(norm)
        # A scale of 1 or less enlarges no gradient, so an overflow is the gradient's own.
        if self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            return math.inf
        names = non_finite((name, p.grad) for name, p in named if p.grad is not None)
        raise self._bad_gradients(names, epoch)

    def _bad_gradients(self, names: list[str], epoch: int) -> NonFiniteOutput:
        kind = "float32" if self.autocast is None else str(self.autocast).removeprefix("torch.")
        found = f"of {listed(names)} hold NaN or infinity" if names else "are too large to add up"
        way = "a lower --learning-rate or --clip-norm 1"
        if self.autocast is not None:
            way = f"--autocast off, and if that ends so, too, with {way}"
        return NonFiniteOutput(
            f"the training diverged in epoch {epoch}, step {self.step + 1}: the gradients {found} "
            f"after a forward pass in {kind} whose loss was finite",
            hint=f"train again with {way}{_kept(epoch)}",
        )

    def _loss(self, batch: Batch, labelled: Tensor, passes: int) -> Tensor:
        with self._autocast():
            logits = self.forward(batch.pictures)
        loss = self.loss(logits, batch.masks, batch.borders, labelled=labelled, passes=passes)
        if self.teacher is None or batch.scores is None:
            return loss
        teaching, counted = self.teacher.teaching, batch.masks != self.loss.ignore
        distance = distillation(
            logits, batch.scores, counted, teaching.temperature, self.processes.total
        )
        return loss + teaching.teacher_weight * distance / labelled

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None)

    def _gradients(self, *, complete: bool) -> contextlib.AbstractContextManager[None]:
        """Synchronise gradients between processes only on the last pass of a step."""
        if complete or self.processes.count == 1:
            return contextlib.nullcontext()
        return self.forward.no_sync()  # type: ignore[operator, no-any-return]


def _kept(epoch: int) -> str:
    return "" if epoch == 1 else "; the best checkpoint so far was kept"


def make_learner(
    model: nn.Module,
    recipe: Recipe,
    card: ModelCard,
    *,
    steps: int,
    processes: Processes,
    class_weights: Tensor | None = None,
    copied: Collection[str] = (),
) -> Learner:
    """Create a learner at step 0.

    Args:
        model: Network, already on the device to train on.
        card: Card of the network, with its input and classes.
        steps: Number of steps in the whole training.
        class_weights: float32 (C,), None to weight all classes by 1.
        copied: Names of the parameters that have initial weights.

    Raises:
        UsageError: The device does not support the dtype that ``recipe.autocast`` names.
    """
    device = next(model.parameters()).device
    augment = None
    if recipe.augmentation is not None:
        augment = Augment(card.input, recipe.augmentation, card.classes.ignore).to(device)
    weights = None if class_weights is None else class_weights.to(device)
    autocast = autocast_type(recipe.autocast, device)
    return Learner(
        model=model,
        forward=processes.wrap(same_size(model)),
        # BatchNorm statistics of small batches are noisy; averaging them with the weights
        # makes validation steady.
        average=AveragedModel(model, avg_fn=_average, use_buffers=True),
        optimizer=torch.optim.AdamW(_groups(model, recipe, copied)),
        scaler=torch.amp.GradScaler(device.type, enabled=autocast is torch.float16),
        course=Course(recipe, steps),
        loss=SegmentationLoss(
            card.classes.ignore, recipe.dice, weights, recipe.ohem, processes.total
        ),
        augment=augment,
        autocast=autocast,
        processes=processes,
        clip_norm=recipe.clip_norm,
    )


def autocast_type(autocast: Autocast, device: torch.device) -> torch.dtype | None:
    """The dtype of the forward pass on a device, None for float32.

    Raises:
        UsageError: The device does not support the dtype.
    """
    if autocast == "bf16":
        return torch.bfloat16
    if autocast == "fp16":
        return torch.float16
    return torch.bfloat16 if autocast == "auto" and _native_bfloat16(device) else None


def _native_bfloat16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 natively; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _groups(model: nn.Module, recipe: Recipe, copied: Collection[str]) -> list[dict[str, Any]]:
    """Group the parameters for AdamW by weight decay and learning rate.

    Biases and the vectors of norms do not decay: He et al., "Bag of Tricks" (CVPR 2019),
    section 3.1.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            rate = recipe.pretrained_rate if name in copied else 1.0
            groups.setdefault((decay, rate), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate": rate}
        for (decay, rate), parameters in groups.items()
    ]


def _average(mean: Tensor, weights: Tensor, steps: Tensor | int) -> Tensor:
    """Power-function average, whose window grows with the training.

    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (CVPR 2024),
    section 3.1, with the exponent of a relative width of 10 %.
    """
    decay: float = (1 - 1 / (1 + int(steps))) ** (AVERAGE_POWER + 1)
    return mean + (weights - mean) * (1 - decay)
