"""Teachers: what a student learns from them, with labels and without."""

import dataclasses
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from edgeseg.artifacts.card import ClassMap, InputSpec, ModelCard
from edgeseg.data.loader import Batch, Order
from edgeseg.data.unlabelled import thinned, unlabelled_id
from edgeseg.errors import EdgesegError, MismatchedArtifact, UsageError
from edgeseg.export.module import export_module as export_imported
from edgeseg.export.network import export_onnx
from edgeseg.models import build
from edgeseg.ops.preprocess import preprocess
from edgeseg.options.training import Recipe, Teaching, TrainConfig
from edgeseg.training.checkpoint import save_checkpoint
from edgeseg.training.distributed import Processes
from edgeseg.training.learner import make_learner
from edgeseg.training.loop import EpochStats, train
from edgeseg.training.teacher import Teacher, distillation, fingerprint, load_teacher, renormalised

OPTIONS: dict[str, bool | int | float | str] = {"width": 8, "depth": 1}
CLASSES = ClassMap.model_validate({"names": ("background", "nucleus")})
CARD = ModelCard(
    name="t",
    arch="unet-lite",
    options=OPTIONS,
    classes=CLASSES,
    input=InputSpec(height=32, width=48),
)


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build("unet-lite", 2, **OPTIONS).eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "teacher" / "model.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, network(1), CARD)
    return path


def scores(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 4, 5, generator=generator) * 3


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_equals_a_plain_twin(temperature: float) -> None:
    logits, theirs = scores(0), scores(1)
    counted = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(2)) > 0.5
    expected = 0.0
    for n, y, x in np.ndindex(2, 4, 5):
        if counted[n, y, x]:
            odds = []
            for values in (theirs, logits):
                powers = np.exp(values[n, :, y, x].double().numpy() / temperature)
                odds.append(powers / powers.sum())
            expected += temperature**2 * float((odds[0] * np.log(odds[0] / odds[1])).sum())
    found = distillation(logits, theirs, counted, temperature)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert distillation(theirs, theirs, counted, temperature).item() == pytest.approx(0, abs=1e-5)


def test_hot_scores_are_matched_as_logits() -> None:
    """Hinton et al. (2015), section 2.1: at a high temperature the gradient is the difference of
    the centred logits, divided by the number of classes.
    """
    logits, theirs = scores(0).requires_grad_(), scores(1)
    everywhere = torch.ones(2, 4, 5, dtype=torch.bool)
    distillation(logits, theirs, everywhere, 300).backward()
    centred = [each - each.mean(dim=1, keepdim=True) for each in (logits.detach(), theirs)]
    assert logits.grad is not None
    assert torch.allclose(logits.grad, (centred[0] - centred[1]) / 3, atol=0.02)
    logits.grad = None
    distillation(logits, theirs, everywhere, 1).backward()
    assert not torch.allclose(logits.grad, (centred[0] - centred[1]) / 3, atol=0.02)


def test_labels_only_what_is_unlabelled_and_sure() -> None:
    pictures = torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    masks = torch.randint(0, 2, (3, 32, 48))
    masks[:, :4] = 255
    masks[1:, 8:] = unlabelled_id(CLASSES)
    batch = Batch(pictures, masks, None)
    with torch.no_grad():
        probability, label = network(1)(pictures).softmax(dim=1).max(dim=1)
    floor = float(probability.quantile(0.4))
    taught = Teacher(network(1), CARD, CARD, Teaching(Path("t"), confidence=floor)).teach(batch)
    expected = masks.clone()
    expected[1:, 8:] = label.where(probability >= floor, 255)[1:, 8:]
    assert torch.equal(taught.masks, expected)
    assert 0.3 < float((taught.masks[1:, 8:] == 255).float().mean()) < 0.5
    assert taught.scores is not None
    assert torch.allclose(taught.scores, network(1)(pictures))
    assert not taught.scores.requires_grad


def test_a_teacher_sees_the_colours_that_it_was_trained_on() -> None:
    rgb = InputSpec(height=32, width=48)
    bgr = InputSpec(
        height=32, width=48, color="bgr", scale=1.0, mean=(9.0, 8.0, 7.0), std=(4.0, 5.0, 6.0)
    )
    levels = torch.randint(0, 256, (2, 3, 32, 48)).float()

    def normalised(spec: InputSpec) -> torch.Tensor:
        values = levels.flip(1) if spec.color == "bgr" else levels
        mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (spec.mean, spec.std))
        return (values * spec.scale - mean) / std

    assert torch.allclose(renormalised(normalised(rgb), rgb, bgr), normalised(bgr), atol=1e-3)
    assert torch.allclose(renormalised(normalised(bgr), bgr, rgb), normalised(rgb), atol=1e-3)
    assert renormalised(levels, rgb, rgb) is levels


def test_a_student_learns_from_a_teacher_alone() -> None:
    """Not a pixel is labelled; a teacher that is never sure enough changes nothing."""
    pictures = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    batch = Batch(pictures, torch.full((2, 32, 48), unlabelled_id(CLASSES)), None)
    recipe = Recipe(augmentation=None, autocast="off", learning_rate=1e-2, schedule="poly", dice=0)

    def losses(confidence: float) -> list[float]:
        one = make_learner(network(2), recipe, CARD, steps=8, processes=Processes())
        one.teacher = Teacher(network(1), CARD, CARD, Teaching(Path("t"), confidence=confidence))
        return [one.run_epoch([batch], 1, epoch)[0] for epoch in range(1, 9)]

    found = losses(0)
    assert found[-1] < 0.9 * found[0], found
    assert losses(1) == [0] * 8


def test_an_epoch_draws_as_many_unlabelled_as_labelled() -> None:
    order = Order(4, 2, parts=2, seed=3, unlabelled=30)
    assert order.steps == 8
    drawn = []
    for order.epoch in (1, 2):
        numbers = [number for batch in order for number in batch]
        others = [number for number in numbers if number >= 4]
        assert sorted(number for number in numbers if number < 4) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert len(others) == 8
        assert len(set(others)) == 4
        assert max(others) < 34
        drawn.append(set(others))
    assert drawn[0] != drawn[1]
    few = [number for batch in Order(4, 1, unlabelled=2) for number in batch]
    assert sorted(few) == [0, 1, 2, 3, 4, 5]
    # Without unlabelled pictures it is the plain shuffle.
    plain = list(range(4))
    random.Random("3 1").shuffle(plain)
    assert [number for batch in Order(4, 1, seed=3) for number in batch] == plain


def test_frames_are_thinned_to_fit() -> None:
    spec = InputSpec(height=16, width=16, resize="letterbox")
    frames = [np.full((40, 80, 3), number, np.uint8) for number in range(100)]
    one = 16 * 16 * (3 * 2 + 1)
    kept = thinned(iter(frames), CLASSES, spec, limit=20 * one)
    expected = [torch.from_numpy(preprocess(frame, spec)) for frame in frames[::8]]
    assert len(kept) == len(expected)
    for (picture, mask, _), wanted in zip(kept, expected, strict=True):
        assert torch.allclose(picture.float(), wanted, atol=1e-3)
        assert mask[4:12].unique().tolist() == [unlabelled_id(CLASSES)]
        assert mask[:4].unique().tolist() == mask[12:].unique().tolist() == [255]
    assert len(thinned(frames[:3], CLASSES, spec, limit=1)) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": {"names": ("background", "cell")}}, "classes background, nucleus"),
        ({"input": {"height": 32, "width": 64}}, "size 48x32 must be the student's, 64x32"),
        ({"input": {"height": 32, "width": 48, "resize": "letterbox"}}, "resize stretch"),
        (
            {"input": {"height": 32, "width": 48, "color": "gray", "mean": (0,), "std": (1,)}},
            "channels 3",
        ),
    ],
)
def test_refuses_a_teacher_that_does_not_fit(
    checkpoint: Path, change: dict[str, Any], reason: str
) -> None:
    student = ModelCard.model_validate(CARD.model_dump() | change)
    with pytest.raises(MismatchedArtifact, match=reason) as caught:
        load_teacher(Teaching(checkpoint.parent), student)
    assert caught.value.hint


class Foreign(torch.nn.Module):
    """A network of another library, at half the size of its pictures."""

    def __init__(self, ending: str, channels: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.ending = ending

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.conv(image)
        if self.ending == "softmax":
            return scores.softmax(1)
        if self.ending == "sigmoid":
            return scores.sigmoid()
        return scores.argmax(1) if self.ending == "labels" else scores


def foreign_teacher(path: Path, ending: str, channels: int = 2) -> Foreign:
    module = Foreign(ending, channels).eval()
    fields = {"classes": CLASSES.names, "size": (32, 48), "normalise": "imagenet"}
    export_imported(module, fields, path / "model.onnx")
    return module


@pytest.mark.parametrize(
    ("ending", "channels"), [("logits", 2), ("softmax", 2), ("sigmoid", 2), ("sigmoid", 1)]
)
def test_a_network_of_another_library_teaches(tmp_path: Path, ending: str, channels: int) -> None:
    module = foreign_teacher(tmp_path, ending, channels)
    teacher = load_teacher(Teaching(tmp_path), CARD)
    assert teacher is not None
    pictures = torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = module(pictures)
        wide = functional.interpolate(raw, size=(32, 48), mode="bilinear")
    if ending == "softmax":
        expected = wide
    elif channels == 1:
        expected = torch.cat([1 - wide, wide], dim=1)
    else:
        odds = wide if ending == "logits" else torch.logit(wide)
        # Independent scores: none above the threshold is the background.
        expected = odds.softmax(dim=1)
        if ending == "sigmoid":
            expected = torch.cat([torch.zeros_like(odds[:, :1]), odds[:, 1:]], dim=1).softmax(dim=1)
    taught = teacher.teach(Batch(pictures, torch.zeros(3, 32, 48, dtype=torch.int64), None))
    assert taught.scores is not None
    assert torch.allclose(taught.scores.softmax(dim=1), expected, atol=1e-4)
    assert not torch.allclose(taught.scores.softmax(dim=1)[0], expected[1], atol=1e-2)


def test_an_exported_network_teaches_as_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    export_onnx(checkpoint, tmp_path / "model.onnx")
    pictures = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    batch = Batch(pictures, torch.zeros(2, 32, 48, dtype=torch.int64), None)
    scores = []
    for path in (checkpoint, tmp_path / "model.onnx"):
        teacher = load_teacher(Teaching(path), CARD)
        assert teacher is not None
        taught = teacher.teach(batch)
        assert taught.scores is not None
        scores.append(taught.scores)
    assert torch.allclose(*scores, atol=1e-4)
    with pytest.raises(MismatchedArtifact, match="pictures of 48x32, and the student's are 16x16"):
        teacher.teach(batch._replace(pictures=pictures[..., :16, :16]))
    with pytest.raises(MismatchedArtifact, match="student's are 24x16"):
        load_teacher(Teaching(tmp_path), CARD, crop=(16, 24))
    assert load_teacher(Teaching(checkpoint), CARD, crop=(16, 24))


def test_labels_alone_cannot_teach(tmp_path: Path) -> None:
    foreign_teacher(tmp_path, "labels")
    with pytest.raises(MismatchedArtifact, match="has no scores of 2 classes") as caught:
        load_teacher(Teaching(tmp_path), CARD)
    assert caught.value.hint


def test_refuses_what_is_no_teacher(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"pickle")
    for path in (tmp_path / "none", tmp_path, tmp_path / "model.pt"):
        with pytest.raises(UsageError, match="expected the network of a teacher"):
            load_teacher(Teaching(path), CARD)
    with pytest.raises(UsageError, match="need a teacher"):
        Teaching(unlabelled=tmp_path)
    full = CLASSES.model_copy(update={"names": tuple(map(str, range(255)))})
    with pytest.raises(UsageError, match="254 classes or fewer"):
        unlabelled_id(full)


def video(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    noise = np.random.default_rng(0)
    for _ in range(6):
        writer.write(noise.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path


@pytest.mark.usefixtures("no_run_plots")
@pytest.mark.parametrize("source", ["folder", "video"])
def test_resumes_to_the_bit(
    small_data: Path, checkpoint: Path, tmp_path: Path, source: str
) -> None:
    unlabelled = small_data / "val" / "images"
    if source == "video":
        unlabelled = video(tmp_path / "clip.avi")
    whole = TrainConfig(
        small_data,
        tmp_path / "whole",
        size=(32, 48),
        options=OPTIONS,
        recipe=Recipe(epochs=2, batch_size=4, autocast="off", touching="gap", border_weight=2),
        teaching=Teaching(checkpoint.parent, unlabelled, confidence=0.5),
    )
    parts = dataclasses.replace(whole, run=tmp_path / "parts")

    def interrupt(stats: EpochStats) -> None:
        raise KeyboardInterrupt

    def tensors(config: TrainConfig) -> dict[str, torch.Tensor]:
        return load_file(config.run / "last.safetensors")

    train(whole)
    train(parts, on_epoch=interrupt)
    half = tensors(parts)
    other = Path(small_data / "train" / "images")
    changed = dataclasses.replace(parts.teaching, unlabelled=other)
    with pytest.raises(MismatchedArtifact, match="other unlabelled pictures"):
        train(dataclasses.replace(parts, resume=True, teaching=changed))
    train(dataclasses.replace(parts, resume=True))
    expected, found = tensors(whole), tensors(parts)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert any(not torch.equal(value, half[name]) for name, value in expected.items())


def test_refuses_a_teacher_before_it_reads_pictures(
    small_data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Reading them may take minutes."""
    begun: list[str] = []

    def track(items, description, total=None):  # type: ignore[no-untyped-def]
        begun.append(description)
        return items

    config = TrainConfig(small_data, tmp_path / "run", size=(64, 64), teaching=Teaching(checkpoint))
    with pytest.raises(MismatchedArtifact, match="size 48x32 must be the student's, 64x64"):
        train(config, track)
    assert not begun


def test_a_glob_of_unlabelled_pictures_is_known_by_its_names(small_data: Path) -> None:
    pictures = small_data / "train" / "images"
    every = fingerprint(pictures / "*.png")
    first = next(iter(sorted(pictures.iterdir())))
    assert every == fingerprint(pictures)
    assert every != fingerprint(pictures / f"{first.name[0]}*.png")
    with pytest.raises(UsageError, match="no picture there"):
        fingerprint(pictures / "*.mp4")


def test_missing_pictures_are_named(small_data: Path, checkpoint: Path, tmp_path: Path) -> None:
    for missing in (tmp_path / "none", tmp_path / "none.mp4"):
        config = TrainConfig(
            small_data,
            tmp_path / "run",
            size=(32, 48),
            options=OPTIONS,
            teaching=Teaching(checkpoint, missing),
        )
        with pytest.raises(EdgesegError, match=missing.name):
            train(config)
