"""Learn from a trained network: its softened scores, and its labels for unlabelled pictures.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), for every pixel.
The teacher sees each picture as augmented for the student, as in Beyer et al., "Knowledge
distillation: A good teacher is patient and consistent" (CVPR 2022), so no scores are stored.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.artifacts.card import InputSpec, ModelCard
from edgeseg.artifacts.files import require_file, sha256_file
from edgeseg.data.folders import list_images
from edgeseg.data.loader import Batch
from edgeseg.data.unlabelled import unlabelled_id
from edgeseg.errors import MismatchedArtifact, UsageError
from edgeseg.models.mirror import same_size
from edgeseg.options.parsing import Size
from edgeseg.options.training import Teaching
from edgeseg.runs import CHECKPOINT, NETWORK, located
from edgeseg.training.checkpoint import load_checkpoint
from edgeseg.training.predictor import to_default_device


@dataclass(frozen=True)
class Teacher:
    """A trained network, and how a student learns from it.

    Attributes:
        model: The network in evaluation mode, from pictures to logits of their size.
    """

    model: nn.Module
    card: ModelCard
    student: ModelCard
    teaching: Teaching

    @torch.no_grad()
    def teach(self, batch: Batch) -> Batch:
        """Add the teacher's scores to a batch, and its labels to unlabelled pixels.

        Args:
            batch: Pictures as the student sees them, and int64 masks.

        Returns:
            The batch with ``scores``, float (N, C, H, W). An unlabelled pixel takes the teacher's
            class if its probability reaches ``confidence``, else it is ignored.
        """
        pictures = renormalised(batch.pictures, self.student.input, self.card.input)
        scores: Tensor = self.model(pictures)
        probability, label = scores.float().softmax(dim=1).max(dim=1)
        ignore = self.student.classes.ignore
        label = label.where(probability >= self.teaching.confidence, ignore)
        unlabelled = batch.masks == unlabelled_id(self.student.classes)
        return batch._replace(masks=label.where(unlabelled, batch.masks), scores=scores)


def distillation(
    logits: Tensor,
    scores: Tensor,
    counted: Tensor,
    temperature: float,
    total: Callable[[Tensor], Tensor] = lambda part: part,
) -> Tensor:
    """Sum the divergence of a student's softened scores from its teacher's, in nats.

    Times the squared temperature, so that gradients have the same size at every temperature
    (Hinton et al. 2015, section 2).

    Args:
        logits: float (N, C, H, W), those of the student.
        scores: float (N, C, H, W), those of the teacher.
        counted: bool (N, H, W), the pixels to learn from.
        temperature: Divisor of both before softmax.
        total: Function that sums a tensor over all processes.
    """
    mine, theirs = (
        (values.float() / temperature).log_softmax(dim=1) for values in (logits, scores)
    )
    divergence = functional.kl_div(mine, theirs, reduction="none", log_target=True).sum(dim=1)
    return total((divergence * counted).sum()) * temperature**2


def renormalised(pictures: Tensor, given: InputSpec, wanted: InputSpec) -> Tensor:
    """Convert preprocessed pictures to the normalisation and the channel order of another input."""
    statistics = [(spec.color, spec.scale, spec.mean, spec.std) for spec in (given, wanted)]
    if statistics[0] == statistics[1]:
        return pictures
    shift, factor = _statistics(given, pictures)
    levels = (pictures * factor + shift) / given.scale
    if given.color != wanted.color:
        levels = levels.flip(1)
    shift, factor = _statistics(wanted, pictures)
    return (levels * wanted.scale - shift) / factor


def _statistics(spec: InputSpec, like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (like.new_tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return mean, std


class OnnxTeacher(nn.Module):
    """An ONNX network as a module, from pictures float (N, C, H, W) to logits of that size.

    It runs in ONNX Runtime on the CPU, wherever the student is.

    Raises:
        ArtifactError: See :class:`edgeseg.engines.scores.OnnxScores`; also where pictures have
            another size than the network takes.
    """

    def __init__(self, path: Path) -> None:
        from edgeseg.engines.scores import OnnxScores

        super().__init__()
        self.scores = OnnxScores(path, torch.get_num_threads())

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits float32 (N, classes, H, W), on the device of the pictures."""
        height, width = pictures.shape[-2:]
        size = (height, width)
        self.check_size(size)
        found = self.scores(np.ascontiguousarray(pictures.float().cpu().numpy()))
        logits = torch.from_numpy(found).to(pictures.device)
        if logits.shape[-2:] == size:
            return logits
        return functional.interpolate(logits, size=size, mode="bilinear")

    def check_size(self, size: Size) -> None:
        """Raise MismatchedArtifact if the graph does not take pictures of a (height, width)."""
        if self.scores.size not in (None, size):
            raise MismatchedArtifact(
                f"{self.scores.path}: the teacher takes pictures of "
                f"{_size(self.scores.card.input)}, and the student's are {size[1]}x{size[0]}",
                hint="train without --crop, or with a checkpoint as the teacher",
            )


def load_teacher(
    teaching: Teaching, student: ModelCard, crop: Size | None = None
) -> Teacher | None:
    """Load the teacher onto the default device; None if there is none.

    Args:
        crop: (height, width) of the crops that the student sees, None for whole pictures.

    Raises:
        UsageError: The teacher is not there, or is neither a checkpoint nor an ONNX network.
        MismatchedArtifact: Its classes, size, resize rule or number of channels differ from the
            student's.
        ArtifactError: See :func:`edgeseg.training.checkpoint.load_checkpoint` and
            :class:`edgeseg.engines.scores.OnnxScores`.
    """
    if teaching.teacher is None:
        return None
    path = network_of(teaching.teacher)
    model, card = _opened(path)
    for what, hint, theirs, ours in (
        (
            "classes",
            "train both on the same classes, named alike in classes.json",
            card.classes.names,
            student.classes.names,
        ),
        ("size", "train with the teacher's --size", _size(card.input), _size(student.input)),
        ("tiles", "train both with --tiles", card.input.tiles, student.input.tiles),
        ("resize", "train with the teacher's --resize", card.input.resize, student.input.resize),
        (
            "channels",
            "train with the teacher's --color",
            card.input.channels,
            student.input.channels,
        ),
    ):
        if theirs != ours:
            raise MismatchedArtifact(
                f"{path}: the teacher's {what} {_text(theirs)} must be "
                f"the student's, {_text(ours)}",
                hint=hint,
            )
    if crop is not None and isinstance(model, OnnxTeacher):
        model.check_size(crop)
    return Teacher(model, card, student, teaching)


def _opened(path: Path) -> tuple[nn.Module, ModelCard]:
    if path.suffix == ".onnx":
        teacher = OnnxTeacher(path)
        return teacher, teacher.scores.card
    model, card = load_checkpoint(path)
    return same_size(to_default_device(model.requires_grad_(requires_grad=False))), card


def network_of(teacher: Path) -> Path:
    """Return the checkpoint of a run folder, else its ``model.onnx``, or the file itself.

    Raises:
        UsageError: There is none.
    """
    path = located(teacher)
    if path.is_dir():
        path = path / (CHECKPOINT if (path / CHECKPOINT).is_file() else NETWORK)
    if path.suffix not in {".safetensors", ".onnx"} or not path.is_file():
        raise UsageError(
            f"{path}: expected the network of a teacher",
            hint="name a run folder of `edgeseg train` or `edgeseg import`, or a "
            "model.safetensors or model.onnx",
        )
    return path


def fingerprint(path: Path) -> str:
    """Identify a file by its content, a folder or a glob by the names: 16 hexadecimal digits.

    Raises:
        UsageError: There is none of them.
    """
    pattern = glob.has_magic(str(path)) and not path.exists()
    if pattern or path.is_dir():
        entries = list_images(path) if pattern else path.iterdir()
        names = "\n".join(sorted(entry.name for entry in entries))
        return hashlib.sha256(names.encode()).hexdigest()[:16]
    return sha256_file(require_file(path))[:16]


def _size(spec: InputSpec) -> str:
    return f"{spec.width}x{spec.height}"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
