"""The training loop.

::

    from edgeseg.training.loop import TrainConfig, train
    result = train(TrainConfig(data=Path("data"), run=Path("runs/mine")))

Trains on one device, a GPU if there is one; for several see :mod:`edgeseg.training.distributed`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from edgeseg.artifacts.card import ModelCard
from edgeseg.artifacts.documents import plural
from edgeseg.artifacts.files import write_atomic
from edgeseg.console import Track, silent
from edgeseg.data.check import refuse_faults
from edgeseg.data.folders import Split
from edgeseg.data.loader import LabelledTensors, Order, batches
from edgeseg.data.unlabelled import WithUnlabelled
from edgeseg.errors import NonFiniteOutput
from edgeseg.evaluation import MEANS, Evaluation, Labelled, score
from edgeseg.options.training import TrainConfig
from edgeseg.training.checkpoint import save_checkpoint
from edgeseg.training.distributed import Processes, joined, rank
from edgeseg.training.learner import Learner, make_learner
from edgeseg.training.losses import median_frequency
from edgeseg.training.memory import memory_explained
from edgeseg.training.plots import Curves, save_curves, save_predictions
from edgeseg.training.predictor import TorchEngine, open_torch, to_default_device
from edgeseg.training.setup import (
    check_batch_norm,
    fresh_network,
    held_out,
    make_card,
    read_splits,
    read_unlabelled,
)
from edgeseg.training.state import (
    EpochStats,
    TrainingState,
    describe,
    load_state,
    restore,
    save_state,
)
from edgeseg.training.teacher import load_teacher
from edgeseg.training.tensorboard import open_board

__all__ = ["EpochStats", "TrainConfig", "TrainResult", "train"]

logger = logging.getLogger(__name__)

BEST = "model.safetensors"
LAST = "last.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """The result of :func:`train`.

    The run folder also holds ``last.safetensors``, from the last epoch, and ``history.json``.

    Attributes:
        checkpoint: ``RUN/model.safetensors``, from the epoch with the best mean IoU on ``val``.
        card: Card of the checkpoint; ``metrics`` holds the values that ``edgeseg eval`` reports.
        history: Statistics of every epoch.
        seconds: Wall time since the training was started or resumed.
        curves: ``RUN/curves.png``, plots of loss and mean IoU.
        strip: ``RUN/predictions.png``, validation pictures from worst to best.
    """

    checkpoint: Path
    card: ModelCard
    history: list[EpochStats]
    seconds: float
    curves: Path
    strip: Path


def train(
    config: TrainConfig, track: Track = silent, on_epoch: Callable[[EpochStats], None] | None = None
) -> TrainResult:
    """Train a network and keep the checkpoint with the best validation score.

    On a CPU, the same configuration, machine and thread count give the same weights, whether the
    training was interrupted or not. Ctrl-C ends it early with the best checkpoint so far; with
    ``config.resume`` it continues after the last completed epoch.

    Under ``torchrun``, rank 0 validates, writes files, and calls ``track`` and ``on_epoch``; the
    other ranks return the same history, possibly before the files exist.

    Args:
        config: Data, network and hyperparameters.
        track: Progress callback, one item per epoch.
        on_epoch: Called after each epoch's validation.

    Raises:
        UsageError: A configuration value is invalid, or ``run`` is not writable.
        ArtifactError: The data set or the weights are invalid, or ``run`` holds the state of a
            training with another configuration.
        RuntimeMissing: TensorBoard or torchvision is requested but not installed.
        NonFiniteOutput: The loss, a gradient or a weight is NaN or infinite.
        DeviceError: Out of memory or shared memory.
        KeyboardInterrupt: Ctrl-C before the first epoch completed; there is nothing to keep.
    """
    started = time.perf_counter()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with joined() as processes:
        if not processes.first:
            track, on_epoch = silent, None
        # Only this process's GPU draws random numbers.
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices), memory_explained():
            torch.manual_seed(config.seed)
            return _train(config, processes, track, on_epoch or (lambda _: None), started)


def _train(
    config: TrainConfig,
    processes: Processes,
    track: Track,
    on_epoch: Callable[[EpochStats], None],
    started: float,
) -> TrainResult:
    recipe = config.recipe
    processes.check(recipe.batch_size)
    training, validation = read_splits(config)
    card = make_card(config, training.classes)
    state = _begin_or_resume(config, training)
    processes.check_epochs(len(state.history))
    if len(state.history) == recipe.epochs:
        logger.info("%s is complete; there is nothing to do", config.run)
        return _finish(config, card, state, validation, started)
    # Before the pictures, whose reading may take minutes.
    model, copied = fresh_network(config, card)
    teacher = load_teacher(config.teaching, card, config.crop)
    if processes.first:
        refuse_faults(config.data, track)
    unlabelled = read_unlabelled(config, card, track)
    tensors = LabelledTensors(
        training, card.classes, card.input, objects=recipe.objects, track=track
    )
    order = Order(
        len(tensors),
        recipe.batch_size,
        accumulate=recipe.accumulate,
        parts=config.parts,
        seed=config.seed,
        share=(processes.rank, processes.count),
        unlabelled=len(unlabelled),
    )
    check_batch_norm(config, card, order.smallest)
    examples = WithUnlabelled(tensors, unlabelled) if unlabelled else tensors
    loader = batches(examples, order)
    learner = make_learner(
        to_default_device(model),
        recipe,
        card,
        steps=recipe.epochs * order.steps,
        processes=processes,
        class_weights=_class_weights(config, tensors, card),
        copied=copied,
    )
    learner.teacher = teacher
    if state.history:
        restore(config.run, state, learner)
    engine = TorchEngine(learner.average.module, card, config.run / BEST)
    pictures = held_out(engine, validation) if processes.first else ()
    board = open_board(config, len(state.history)) if processes.first else None
    try:
        epochs = range(len(state.history) + 1, recipe.epochs + 1)
        for epoch in track(epochs, "train", len(epochs)):
            begun = time.perf_counter()
            _seed(config.seed, epoch, processes.rank)
            order.epoch = epoch
            learnt = learner.run_epoch(loader, order.passes, epoch)
            evaluation = _validate(learner, engine, pictures, epoch) if processes.first else None
            stats = _stats(epoch, learnt, learner, evaluation, begun)
            reached = state.after(stats, learner)
            if evaluation is not None:
                metrics = {name: getattr(evaluation, name) for name in MEANS}
                card = card.model_copy(update={"metrics": metrics | {"epoch": float(epoch)}})
                _keep(config.run, card, learner, reached, best=stats.mean_iou > state.best)
            state = reached  # Ctrl-C before this leaves the epoch out
            if board is not None:
                board.add(stats, engine, next(iter(pictures)))
            on_epoch(stats)
    except KeyboardInterrupt:
        if not state.history:
            raise
        logger.warning("stopped after %d of %s", len(state.history), plural(recipe.epochs, "epoch"))
    finally:
        if board is not None:
            board.close()
    return _finish(config, card, state, validation, started)


def _begin_or_resume(config: TrainConfig, split: Split) -> TrainingState:
    """Load the training state in ``run`` if resuming, else return a fresh one."""
    described = describe(config, split)
    if not config.resume:
        return TrainingState(config=described)
    state = load_state(config.run, described)
    if state is None:
        logger.info("%s holds no training to resume; starting a new one", config.run)
        return TrainingState(config=described)
    logger.info("resuming %s after epoch %d", config.run, len(state.history))
    return state


def _class_weights(
    config: TrainConfig, tensors: LabelledTensors, card: ModelCard
) -> torch.Tensor | None:
    if config.recipe.class_weights == "none":
        return None
    weights = median_frequency(tensors.masks(), len(card.classes))
    named = zip(card.classes.names, weights.tolist(), strict=True)
    logger.info("class weights: %s", ", ".join(f"{name} {weight:.3g}" for name, weight in named))
    return weights


def _seed(seed: int, epoch: int, rank: int) -> None:
    """Seed an epoch independently of earlier ones, so that a training can be resumed."""
    torch.manual_seed(random.Random(f"{seed} {epoch} {rank}").getrandbits(63))


def _validate(
    learner: Learner, engine: TorchEngine, pictures: Iterable[Labelled], epoch: int
) -> Evaluation:
    """Evaluate as ``edgeseg eval`` does; catches a divergence in the epoch's last step."""
    try:
        return score(engine, pictures)
    except NonFiniteOutput as error:
        raise learner.diverged(epoch) from error


def _stats(
    epoch: int,
    learnt: tuple[float, float | None],
    learner: Learner,
    evaluation: Evaluation | None,
    begun: float,
) -> EpochStats:
    """The epoch's statistics, taken from rank 0 on all processes."""
    found = (0.0, 0.0) if evaluation is None else (evaluation.mean_iou, evaluation.pixel_accuracy)
    mean_iou, pixel_accuracy = learner.processes.share(found)
    return EpochStats(
        epoch=epoch,
        loss=learnt[0],
        learning_rate=learner.course.learning_rate(learner.step),
        mean_iou=mean_iou,
        pixel_accuracy=pixel_accuracy,
        seconds=time.perf_counter() - begun,
        gradient_norm=learnt[1],
    )


def _keep(
    run: Path, card: ModelCard, learner: Learner, state: TrainingState, *, best: bool
) -> None:
    """Write the checkpoints, then the state, so that a crash in between repeats the epoch."""
    network = learner.average.module
    if best:
        save_checkpoint(run / BEST, network, card)
    save_checkpoint(run / LAST, network, card)
    save_state(run, state, learner)


def _finish(
    config: TrainConfig, card: ModelCard, state: TrainingState, validation: Split, started: float
) -> TrainResult:
    """Reload the best checkpoint, and write plots and history beside it."""
    checkpoint = config.run / BEST
    curves, strip = checkpoint.with_name("curves.png"), checkpoint.with_name("predictions.png")
    history = list(state.history)
    if rank() == 0:
        engine = open_torch(checkpoint)
        card = engine.card
        epochs = [dataclasses.asdict(stats) for stats in history]
        write_atomic(checkpoint.with_name("history.json"), json.dumps(epochs, indent=2) + "\n")
        save_curves(curves, Curves([e.loss for e in history], [e.mean_iou for e in history]))
        save_predictions(strip, engine, held_out(engine, validation))
        if len(history) == config.recipe.epochs:
            save_state(config.run, state, None)
    seconds = time.perf_counter() - started
    return TrainResult(checkpoint, card, history, seconds, curves, strip)
