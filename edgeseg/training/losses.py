"""The training loss: cross-entropy for every pixel, Dice for every class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def segmentation_loss(logits: Tensor, masks: Tensor, ignore: int) -> Tensor:
    """Cross-entropy plus soft Dice: the one has clean gradients, the other lifts rare classes.

    Args:
        logits: float (N, C, H, W).
        masks: int64 (N, H, W), class ids and ``ignore``.
        ignore: Value whose pixels count in neither part.

    Returns:
        A float32 scalar; 0 where no pixel carries a label.
    """
    logits = logits.float()
    labelled = masks != ignore
    # "mean" divides by the number of labelled pixels and is nan when there is none.
    entropy = functional.cross_entropy(logits, masks, ignore_index=ignore, reduction="sum")
    return entropy / labelled.sum().clamp(min=1) + dice_loss(logits, masks, labelled)


def dice_loss(logits: Tensor, masks: Tensor, labelled: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes in the batch.

    Milletari, Navab and Ahmadi, "V-Net" (3DV 2016), with squares in the denominator. Taken
    over the batch as a whole, since a class is missing from many single pictures.
    """
    probabilities = logits.softmax(dim=1) * labelled[:, None]
    truth = functional.one_hot(masks.where(labelled, 0), logits.shape[1]).movedim(3, 1)
    truth = truth.to(probabilities.dtype) * labelled[:, None]
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))
    total = (probabilities.square() + truth).sum(dim=(0, 2, 3))
    present = truth.sum(dim=(0, 2, 3)) > 0
    dice = 2 * overlap / total.clamp(min=1e-6)
    return torch.where(present, 1 - dice, 0).sum() / present.sum().clamp(min=1)
