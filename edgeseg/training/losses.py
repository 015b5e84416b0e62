"""The training loss: weighted pixel-wise cross-entropy plus soft Dice per class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


@dataclass(frozen=True)
class SegmentationLoss:
    """Cross-entropy plus soft Dice, which helps rare classes.

    The cross-entropy is that of the U-Net paper (Ronneberger et al. 2015, equations 1 and 2),
    ``sum over pixels of (class weight + border weight) * -log p``, divided by the number of
    labelled pixels. With ``ohem`` below 1, only that share of the labelled pixels counts, those
    of the highest loss: Shrivastava, Gupta and Girshick, "OHEM" (CVPR 2016), for pixels as in Wu,
    Shen and van den Hengel, "Bootstrapped cross-entropy" (2016).

    Attributes:
        ignore: Mask value of pixels to exclude from the loss.
        class_weights: float32 (C,), None to weight all classes by 1.
        ohem: Share of the labelled pixels of each pass, and each process, that counts.
        total: Function that sums a tensor over all processes, so that the loss is that of the
            global batch.
    """

    ignore: int
    dice: float = 1.0
    class_weights: Tensor | None = None
    ohem: float = 1.0
    total: Callable[[Tensor], Tensor] = lambda part: part

    def labelled(self, masks: Iterable[Tensor]) -> Tensor:
        """Count the labelled pixels in ``masks`` over all processes: float32, at least 1."""
        count = torch.stack([(mask != self.ignore).sum() for mask in masks]).sum()
        return self.total(count.float()).clamp(min=1)

    def __call__(
        self,
        logits: Tensor,
        masks: Tensor,
        borders: Tensor | None = None,
        *,
        labelled: Tensor | None = None,
        passes: int = 1,
    ) -> Tensor:
        """Compute the loss of one forward pass.

        Args:
            logits: float (N, C, H, W).
            masks: int64 (N, H, W), class ids or ``ignore``.
            borders: float32 (N, H, W), border weights to add to the class weights.
            labelled: Result of :meth:`labelled` for the whole step, if it has several passes.
            passes: Number of passes in the step. Their losses add up to that of one large batch,
                except that Dice is computed, and the hardest pixels are chosen, per pass.

        Returns:
            A float32 scalar; 0 if no pixel is labelled.
        """
        # Planes, whatever the network computes in: with few classes, softmax over the last
        # dimension of channels_last takes twice the time.
        logits = logits.float().contiguous()
        if labelled is None:
            labelled = self.labelled([masks])
        entropy = functional.cross_entropy(
            logits, masks, ignore_index=self.ignore, reduction="none"
        )
        weights = self._weights(masks, borders)
        entropy = entropy if weights is None else entropy * weights
        loss: Tensor = self.total(self._hardest(entropy, masks).sum()) / (labelled * self.ohem)
        if self.dice:
            loss = loss + self.dice / passes * self._dice(logits, masks)
        return loss

    def _hardest(self, entropy: Tensor, masks: Tensor) -> Tensor:
        if self.ohem == 1:
            return entropy
        # Ignored pixels have a cross-entropy of 0, so they come last.
        count = math.ceil(self.ohem * int((masks != self.ignore).sum()))
        return entropy.flatten().topk(count, sorted=False).values

    def _weights(self, masks: Tensor, borders: Tensor | None) -> Tensor | None:
        if self.class_weights is None:
            return None if borders is None else 1 + borders
        # Ignored pixels have a cross-entropy of 0, so their weight does not matter.
        weights = self.class_weights[masks.where(masks != self.ignore, 0)]
        return weights if borders is None else weights + borders

    def _dice(self, logits: Tensor, masks: Tensor) -> Tensor:
        """One minus the soft Dice coefficient, averaged over the classes in the batch.

        Milletari, Navab and Ahmadi, "V-Net" (3DV 2016), with squares in the denominator. Computed
        over the whole batch, since many single pictures lack some class.
        """
        known = masks != self.ignore
        ids = masks.where(known, 0)
        pixels = torch.bincount(masks[known], minlength=logits.shape[1])
        overlap, squares = _ClassSums.apply(logits, ids, known)  # type: ignore[no-untyped-call]
        sums = torch.stack([overlap, squares, pixels])
        overlap, squares, pixels = self.total(sums)
        both = squares + pixels
        present = pixels > 0
        dice = 2 * overlap / both.clamp(min=1e-6)
        mean: Tensor = torch.where(present, 1 - dice, 0).sum() / present.sum().clamp(min=1)
        return mean


class _ClassSums(torch.autograd.Function):
    """Sums that soft Dice needs of the softmax over the classes, in few passes over memory.

    Automatic differentiation of the same keeps and reads six arrays of the size of the logits, at
    full size more than a light network does itself.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of each class's probability where it is true, and of its square anywhere.

        Args:
            ctx: What :meth:`backward` needs.
            logits: float32 (N, C, H, W).
            ids: int64 (N, H, W), class ids.
            known: bool (N, H, W), pixels that count.

        Returns:
            Two of float32 (C,).
        """
        probabilities = logits.softmax(dim=1).mul_(known[:, None])
        true = probabilities.gather(1, ids[:, None]).flatten()
        overlap = logits.new_zeros(logits.shape[1]).index_add_(0, ids.flatten(), true)
        squares = torch.linalg.vector_norm(probabilities, dim=(2, 3)).square().sum(dim=0)
        ctx.save_for_backward(probabilities, ids)
        return overlap, squares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, overlap: Tensor, squares: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the logits: float32 (N, C, H, W)."""
        probabilities, ids = ctx.saved_tensors
        each = probabilities * (2 * squares)[:, None, None]
        each.scatter_add_(1, ids[:, None], overlap[ids][:, None])
        mean = (each * probabilities).sum(dim=1, keepdim=True)
        return each.sub_(mean).mul_(probabilities), None, None


def median_frequency(masks: Iterable[Tensor], num_classes: int) -> Tensor:
    """Compute class weights by median frequency: Eigen and Fergus (ICCV 2015), section 6.

    The weight is ``median(frequency) / frequency``, where the frequency of a class is its share of
    the pixels of those pictures in which it occurs.

    Args:
        masks: uint8 (H, W) each; ids of ``num_classes`` and above are unlabelled.

    Returns:
        float32 (C,); 0 for a class that never occurs.
    """
    pixels, pictures = torch.zeros(2, num_classes, dtype=torch.float64)
    for mask in masks:
        counts = torch.bincount(mask.flatten().int(), minlength=num_classes)[:num_classes]
        pixels += counts
        pictures += counts.sum() * (counts > 0)
    frequency = pixels / pictures.clamp(min=1)
    found = frequency > 0
    # Not torch.median, which returns the lower of the two middle values.
    middle = torch.quantile(frequency[found], 0.5) if bool(found.any()) else torch.tensor(0.0)
    return torch.where(found, middle / frequency.where(found, 1), 0).float()
