"""The state of a training, saved so that it can be resumed, without pickle.

``RUN/state.safetensors`` holds the weights, their running mean and the moments of AdamW; its
header holds everything else as JSON. Random numbers depend on the seed and the epoch alone, so no
generator state is saved. When the training has ended, the tensors are removed and the header stays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgeseg.artifacts.documents import Document, parse
from edgeseg.artifacts.files import write_atomic
from edgeseg.data.folders import Split
from edgeseg.errors import CorruptArtifact, MismatchedArtifact, needed
from edgeseg.options.training import Teaching, TrainConfig
from edgeseg.training.finite import refuse_non_finite
from edgeseg.training.learner import Learner
from edgeseg.training.teacher import fingerprint, network_of

with needed("the state of a training needs", "train"):
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save as serialize

STATE = "state.safetensors"
STATE_KEY = "edgeseg.training"
_OF_THE_MACHINE = ("data", "run", "resume", "tensorboard", "threads")
"""Configuration fields that may differ when a training is resumed."""


@dataclass(frozen=True)
class EpochStats:
    """Statistics of one epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        learning_rate: Learning rate at the end of the epoch.
        mean_iou: Mean IoU on ``val``.
        pixel_accuracy: Pixel accuracy on ``val``.
        seconds: Wall time.
        gradient_norm: Mean L2 norm of the gradient before clipping; None if float16 skipped all
            steps, and in trainings by versions that did not record it.
    """

    epoch: int
    loss: float
    learning_rate: float
    mean_iou: float
    pixel_accuracy: float
    seconds: float
    gradient_norm: float | None = None


class TrainingState(Document):
    """The header of a state file.

    Attributes:
        config: The configuration, flattened, and a digest of the training pictures.
        history: Statistics of the completed epochs.
        scaler: State of the gradient scaler, empty unless training in float16.
    """

    schema_version: Literal[1] = 1
    config: dict[str, Any]
    history: tuple[EpochStats, ...] = ()
    step: int = 0
    scaler: dict[str, int | float] = Field(default_factory=dict)

    @property
    def best(self) -> float:
        """Highest mean IoU so far."""
        return max((stats.mean_iou for stats in self.history), default=-1.0)

    def after(self, stats: EpochStats, learner: Learner) -> TrainingState:
        """Return the state after one more epoch."""
        return self.model_copy(
            update={
                "history": (*self.history, stats),
                "step": learner.step,
                "scaler": learner.scaler.state_dict(),
            }
        )


def describe(config: TrainConfig, split: Split) -> dict[str, Any]:
    """Flatten everything that must be equal to resume a training into JSON values."""
    names = "\n".join(sample.image.name for sample in split)
    values = dataclasses.asdict(config)
    values = {key: value for key, value in values.items() if key not in _OF_THE_MACHINE}
    if not config.tiles:
        del values["tiles"]  # trainings that older versions started do not know it
    if config.weights is not None:
        values["weights"] = config.weights.name
    values["teaching"] |= _identified(config.teaching)
    values["pictures"] = hashlib.sha256(names.encode()).hexdigest()[:16]
    flat: dict[str, Any] = json.loads(json.dumps(dict(_flattened(values))))
    return flat


def _identified(teaching: Teaching) -> dict[str, str | None]:
    """Return what the teacher and the unlabelled pictures are, wherever they lie."""
    teacher, unlabelled = teaching.teacher, teaching.unlabelled
    return {
        "teacher": None if teacher is None else fingerprint(network_of(teacher)),
        "unlabelled": None if unlabelled is None else fingerprint(unlabelled),
    }


def save_state(run: Path, state: TrainingState, learner: Learner | None) -> None:
    """Write the state atomically; without a learner, write the header of an ended training.

    Raises:
        NonFiniteOutput: A tensor holds NaN or infinity; nothing is written.
    """
    tensors = {} if learner is None else _tensors(learner)
    refuse_non_finite(run / STATE, tensors.items())
    data = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomic(run / STATE, serialize(data, metadata={STATE_KEY: state.to_json()}))


def load_state(run: Path, config: dict[str, Any]) -> TrainingState | None:
    """Read the state's header from ``run``, None if there is no state.

    Raises:
        CorruptArtifact: The file is not the state of a training.
        MismatchedArtifact: The state belongs to a training with another configuration.
    """
    path = run / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if STATE_KEY not in metadata:
        raise _unreadable(path, f"no {STATE_KEY} in its header")
    state = parse(TrainingState, metadata[STATE_KEY], str(path))
    for name in sorted(state.config.keys() | config.keys()):
        before, now = state.config.get(name), config.get(name)
        if before != now:
            raise MismatchedArtifact(
                f"{path}: the training was started {_started(name, before, now)}",
                hint="resume with the options it was started with, or train on in another --run "
                f"with --weights {run / 'model.safetensors'}",
            )
    return state


_DIGESTS = {
    "pictures": ("pictures", "other pictures in train"),
    "teaching.teacher": ("a teacher", "another teacher"),
    "teaching.unlabelled": ("unlabelled pictures", "other unlabelled pictures"),
}
"""What a digest in a configuration stands for."""


def _started(name: str, before: object, now: object) -> str:
    if name in _DIGESTS:
        one, another = _DIGESTS[name]
        return f"without {one}" if before is None else f"with {one if now is None else another}"
    option = name.removeprefix("recipe.").removeprefix("options.").removeprefix("teaching.")
    return f"with {option} {before!r}, now it is {now!r}"


def restore(run: Path, state: TrainingState, learner: Learner) -> None:
    """Load the state in ``run`` into a fresh learner.

    Raises:
        CorruptArtifact: The tensors do not match this network.
    """
    path = run / STATE
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        learner.model.load_state_dict(_below("model.", tensors))
        learner.average.load_state_dict(_below("average.", tensors))
        _restore_moments(learner, _below("optimizer.", tensors))
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise _unreadable(path, error) from error
    if state.scaler:
        learner.scaler.load_state_dict(dict(state.scaler))
    learner.step = state.step


def _tensors(learner: Learner) -> dict[str, Tensor]:
    moments = learner.optimizer.state_dict()["state"]
    return {
        **{f"model.{name}": value for name, value in learner.model.state_dict().items()},
        **{f"average.{name}": value for name, value in learner.average.state_dict().items()},
        **{
            f"optimizer.{index}.{name}": value
            for index, values in moments.items()
            for name, value in values.items()
        },
    }


def _restore_moments(learner: Learner, tensors: dict[str, Tensor]) -> None:
    if not tensors and learner.scaler.is_enabled():
        return  # float16 has skipped every step so far
    optimizer = learner.optimizer
    groups = (group["params"] for group in optimizer.param_groups)
    for index, parameter in enumerate(itertools.chain.from_iterable(groups)):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors[f"{index}.{name}"]
            if name != "step":
                # Same memory format as the weights, or the optimiser takes a slower path.
                value = torch.empty_like(parameter).copy_(value)
            optimizer.state[parameter][name] = value


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _flattened(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            pairs += _flattened(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value))
    return pairs


def _unreadable(path: Path, reason: object) -> CorruptArtifact:
    return CorruptArtifact(
        f"{path}: not the state of a training ({reason})",
        hint="start over with `edgeseg train --overwrite`",
    )
