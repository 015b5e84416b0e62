"""Steps of a learner: passes that make one batch, types of the forward pass, its state."""

import math
from pathlib import Path

import pytest
import torch
from cards import model_card
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeseg.data.loader import Batch
from edgeseg.errors import NonFiniteOutput
from edgeseg.models import build
from edgeseg.options.training import Autocast, Recipe
from edgeseg.training.distributed import Processes
from edgeseg.training.learner import AVERAGE_POWER, Learner, _average, autocast_type, make_learner
from edgeseg.training.state import TrainingState, restore, save_state

CPU = torch.device("cpu")
# No BatchNorm and no dropout: what looks at more than one picture would tell the passes apart.
OPTIONS: dict[str, bool | int | float | str] = {"width": 8, "depth": 1, "dropout": 0.0}
CARD = model_card("ab", 24, 32, arch="unet", options=OPTIONS)


def learner(recipe: Recipe, steps: int = 6) -> Learner:
    torch.manual_seed(0)
    model = build("unet", 2, **OPTIONS)
    return make_learner(model, recipe, CARD, steps=steps, processes=Processes())


def pictures(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(count, 1, 3, 4, generator=generator) > 0.5
    masks = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, 0].to(torch.uint8)
    values = masks[:, None] + torch.randn(count, 3, 24, 32, generator=generator) / 4
    masks[0, :12] = 255  # labels are spread unevenly over the passes
    return Batch(values, masks, torch.rand(count, 24, 32, generator=generator))


def split(batch: Batch, size: int) -> list[Batch]:
    parts = zip(*(part.split(size) for part in batch if part is not None), strict=True)
    return [Batch(*part) for part in parts]


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((mine - theirs).detach().abs().max()) for mine, theirs in pairs)


def test_passes_make_one_large_batch() -> None:
    # In bfloat16 each pass rounds its gradients before they are added up.
    recipe = Recipe(augmentation=None, dice=0, autocast="off")
    whole, parts, apart = (learner(recipe) for _ in range(3))
    batches = [pictures(6, seed) for seed in range(3)]
    for epoch, batch in enumerate(batches, 1):
        expected = whole.run_epoch([batch], 1, epoch)
        found = parts.run_epoch(split(batch, 2), 3, epoch)
        assert found == pytest.approx(expected, rel=1e-5)
    apart.run_epoch([part for batch in batches for part in split(batch, 2)], 1, 1)
    assert (whole.step, parts.step, apart.step) == (3, 3, 9)
    # AdamW divides by the size of the gradient, so roundings of tiny ones are seen.
    assert difference(whole.model, parts.model) < 1e-5
    assert difference(whole.model, apart.model) > 1e-3


def test_the_type_is_that_of_the_forward_pass() -> None:
    seen: list[torch.dtype] = []
    for autocast in ("off", "bf16", "fp16"):
        one = learner(Recipe(augmentation=None, autocast=autocast))
        one.model.register_forward_hook(lambda *values: seen.append(values[-1].dtype))
        one.run_epoch([pictures(2)], 1, 1)
    assert seen == [torch.float32, torch.bfloat16, torch.float16]


def test_float16_that_overflows_costs_a_step_and_not_the_weights() -> None:
    """Gradients of a scale of 2**60 are infinite: the step is left out and the scale halved."""
    one = learner(Recipe(augmentation=None, autocast="fp16"))
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    one.scaler.load_state_dict(one.scaler.state_dict() | {"scale": 2.0**60})
    one.run_epoch([pictures(2)], 1, 1)
    assert one.scaler.get_scale() == 2.0**59
    assert all(torch.equal(a, b) for a, b in zip(before, one.model.parameters(), strict=True))


def spoil(one: Learner, value: float) -> None:
    """Give the head's bias a gradient that is no number."""
    one.model.get_parameter("head.bias").register_hook(lambda gradient: gradient * value)


@pytest.mark.parametrize(
    ("autocast", "way"), [("off", "--learning-rate"), ("bf16", "--autocast off")]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_ends_the_training(
    autocast: Autocast, way: str, value: float
) -> None:
    one = learner(Recipe(augmentation=None, autocast=autocast))
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    spoil(one, value)
    with pytest.raises(NonFiniteOutput, match=r"epoch 7, step 1: .*head\.bias") as caught:
        one.run_epoch([pictures(2)], 1, 7)
    assert way in (caught.value.hint or "")
    assert all(torch.equal(a, b) for a, b in zip(before, one.model.parameters(), strict=True))


def test_float16_skips_steps_until_the_scale_is_not_the_cause() -> None:
    one = learner(Recipe(augmentation=None, autocast="fp16"))
    spoil(one, math.nan)
    one.scaler.load_state_dict(one.scaler.state_dict() | {"scale": 2.0})
    assert one.run_epoch([pictures(2)], 1, 1)[1] is None
    with pytest.raises(NonFiniteOutput, match=r"head\.bias"):
        one.run_epoch([pictures(2)], 1, 2)


def norm(one: Learner) -> float:
    gradients = [p.grad for p in one.model.parameters() if p.grad is not None]
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))


def test_the_norm_is_that_of_all_gradients_and_can_be_clipped() -> None:
    free = learner(Recipe(augmentation=None, autocast="off"))
    found = free.run_epoch([pictures(2)], 1, 1)[1]
    assert found == pytest.approx(norm(free), rel=1e-4)
    assert found is not None
    clipped = learner(Recipe(augmentation=None, autocast="off", clip_norm=found / 2))
    assert clipped.run_epoch([pictures(2)], 1, 1)[1] == pytest.approx(found, rel=1e-4)
    assert norm(clipped) == pytest.approx(found / 2, rel=1e-3)


def test_the_average_has_the_papers_width() -> None:
    """Karras et al. (2024): the profile of the average over a training of n steps is a power
    function, whose mean is at (γ + 1) / (γ + 2) of the steps and whose deviation is a tenth.
    """
    steps = 2000
    average = AveragedModel(nn.Linear(2, 1), avg_fn=_average)
    for step in range(1, steps + 1):
        model = nn.Linear(2, 1).double()
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[step, step**2]]))
        if step == 1:
            average = AveragedModel(model, avg_fn=_average)
        average.update_parameters(model)
    first, second = average.module.weight[0].tolist()
    assert first / steps == pytest.approx((AVERAGE_POWER + 1) / (AVERAGE_POWER + 2), rel=1e-3)
    assert math.sqrt(second - first**2) / steps == pytest.approx(0.1, rel=1e-2)


def test_only_kernels_decay_and_copied_layers_learn_slowly() -> None:
    recipe = Recipe(augmentation=None, weight_decay=0.5, pretrained_rate=0.1, schedule="poly")
    torch.manual_seed(0)
    model = build("unet-lite", 2, width=8, depth=1)
    copied = [name for name, _ in model.named_parameters()][:4]
    one = make_learner(model, recipe, CARD, steps=10, processes=Processes(), copied=copied)
    one.course.apply(one.optimizer, 0)
    group_of = {
        id(parameter): group
        for group in one.optimizer.param_groups
        for parameter in group["params"]
    }
    parameters = dict(model.named_parameters())
    assert len(group_of) == len(parameters)
    for name, parameter in parameters.items():
        group = group_of[id(parameter)]
        assert group["lr"] == pytest.approx(3e-3 * (0.1 if name in copied else 1))
        assert group["weight_decay"] == (
            0.5 if name.endswith("weight") and parameter.ndim == 4 else 0
        )
    assert {group["weight_decay"] for group in one.optimizer.param_groups} == {0, 0.5}


def test_autocast_is_automatic_only_where_bfloat16_is_native(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = {"avx512_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert autocast_type("auto", CPU) is None
    found["avx512_bf16"] = True
    assert autocast_type("auto", CPU) is torch.bfloat16
    assert autocast_type("off", CPU) is None


@pytest.mark.parametrize("autocast", ["off", "bf16", "fp16"])
def test_a_restored_learner_goes_on_to_the_bit(autocast: Autocast, tmp_path: Path) -> None:
    recipe = Recipe(augmentation=None, autocast=autocast)
    batches = [pictures(2, seed) for seed in range(4)]
    straight, first, second = (learner(recipe) for _ in range(3))
    straight.run_epoch(batches, 1, 1)
    first.run_epoch(batches[:2], 1, 1)
    state = TrainingState(config={}, step=first.step, scaler=first.scaler.state_dict())
    save_state(tmp_path, state, first)
    restore(tmp_path, state, second)
    second.run_epoch(batches[2:], 1, 2)

    def tensors(one: Learner) -> dict[str, Tensor]:
        return one.model.state_dict() | {
            f"average.{name}": value for name, value in one.average.state_dict().items()
        }

    expected, found = tensors(straight), tensors(second)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert second.scaler.state_dict() == straight.scaler.state_dict()
    assert not all(torch.equal(value, tensors(first)[name]) for name, value in expected.items())


def test_a_learner_that_skipped_every_step_is_restored(tmp_path: Path) -> None:
    """AdamW has no moments then, and an interruption must not cost the training."""
    recipe = Recipe(augmentation=None, autocast="fp16")
    first, second = learner(recipe), learner(recipe)
    first.scaler.load_state_dict(first.scaler.state_dict() | {"scale": 2.0**60})
    assert first.run_epoch([pictures(2)], 1, 1)[1] is None
    state = TrainingState(config={}, step=first.step, scaler=first.scaler.state_dict())
    save_state(tmp_path, state, first)
    restore(tmp_path, state, second)
    assert second.scaler.get_scale() == 2.0**59
    for one in (first, second):
        one.scaler.load_state_dict(one.scaler.state_dict() | {"scale": 16.0})
        assert one.run_epoch([pictures(2, 1)], 1, 2)[1] is not None
    expected, found = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_it_learns_in_every_type() -> None:
    batch = pictures(1)
    for autocast in ("off", "bf16", "fp16"):
        recipe = Recipe(augmentation=None, autocast=autocast, learning_rate=1e-2, schedule="cosine")
        one = learner(recipe, steps=10)
        losses = [one.run_epoch([batch], 1, epoch)[0] for epoch in range(1, 11)]
        assert losses[-1] < 0.8 * losses[0], (autocast, losses)
        assert all(parameter.dtype == torch.float32 for parameter in one.model.parameters())
