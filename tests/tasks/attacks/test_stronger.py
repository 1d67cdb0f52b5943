"""APGD, Square and the spatial attack against closed forms and what they promise; targets, precision, and cost."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from torch import nn

from models import nsl_cnn
from tasks.attacks import apgd_ce, apgd_t, attack, cost, fgsm, margin, pgd, spatial, square
from tasks.attacks._apgd import checkpoints
from tasks.config.params import Threat
from tasks.engine.inference import logits_of

LINF, L2 = Threat(norm="linf", epsilon=0.1), Threat(norm="l2", epsilon=0.4)
STEPS: dict[str, Any] = {
    "pgd": pgd.Params(steps=20, step_size=0.05),
    "apgd_ce": apgd_ce.Params(steps=30),
    "apgd_t": apgd_t.Params(steps=30),
}


def linear(classes: int, channels: int = 1) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A linear softmax, and images so far from 0 and 1 that nothing is cut; half of them rightly answered, barely."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(channels * 36, classes))
    images = 0.2 + 0.6 * torch.rand(48, channels, 6, 6)
    return net, images, logits_of(net, images).argmax(1)


def closed_form(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, threat: Threat) -> torch.Tensor:
    """Whether any wrong class can win within the ball: its lead grows by ε times the dual norm of w_t − w_y."""
    weight = net[1].weight.detach()  # type: ignore[index,union-attr,operator]
    logits = logits_of(net, images)
    apart = weight[None] - weight[labels][:, None]  # type: ignore[index]
    reach = apart.abs().sum(2) if threat.norm == "linf" else apart.norm(dim=2)
    lead = logits - logits.gather(1, labels[:, None]) + threat.epsilon * reach
    fooled: torch.Tensor = lead.scatter(1, labels[:, None], -1).amax(1) > 0
    return fooled


def halfway(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, threat: Threat) -> Threat:
    """The threat model with a radius at which half of the images can be fooled."""
    low, high = 0.0, 0.5
    for _ in range(30):
        middle = threat.model_copy(update={"epsilon": (low + high) / 2})
        enough = int(closed_form(net, images, labels, middle).sum()) > len(labels) // 2
        low, high = (low, middle.epsilon) if enough else (middle.epsilon, high)
    return threat.model_copy(update={"epsilon": low * 1.001})


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize("name", sorted(STEPS))
def test_on_logistic_regression_the_verdicts_are_the_closed_forms(name: str, threat: Threat) -> None:
    net, images, labels = linear(2)
    threat = halfway(net, images, labels, threat)
    params = STEPS["pgd"].model_copy(update={"step_size": threat.epsilon / 4}) if name == "pgd" else STEPS[name]
    wanted = closed_form(net, images, labels, threat)
    assert 0 < wanted.sum() < len(wanted)
    assert torch.equal(attack(name, net, images, labels, threat, params, 0).success, wanted)


def test_what_stands_ends_at_epsilon_times_the_sign() -> None:
    net, images, labels = linear(2)
    threat = Threat(norm="linf", epsilon=0.01)
    weight = net[1].weight.detach()  # type: ignore[index,union-attr,operator]
    sides = torch.where(labels == 0, 1.0, -1.0)[:, None, None, None]
    worst = images + 0.01 * (weight[1] - weight[0]).sign().reshape(1, 1, 6, 6) * sides  # type: ignore[index,operator,union-attr]
    for name in ("apgd_ce", "apgd_t"):
        found = attack(name, net, images, labels, threat, STEPS[name], 0)
        assert (~found.success).sum() > 10
        assert torch.allclose(found.images[~found.success], worst[~found.success], atol=1e-6), name


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_the_targeted_ratio_finds_every_class_that_can_win(threat: Threat) -> None:
    net, images, labels = linear(5, 3)
    threat = halfway(net, images, labels, threat)
    wanted = closed_form(net, images, labels, threat)
    assert 0 < wanted.sum() < len(wanted)
    assert torch.equal(attack("apgd_t", net, images, labels, threat, STEPS["apgd_t"], 0).success, wanted)
    few = attack("apgd_t", net, images, labels, threat, apgd_t.Params(steps=30, targets=1), 0).success
    assert not (few & ~wanted).any()


@pytest.mark.parametrize("name", sorted(STEPS))
def test_no_attack_sees_the_scale_of_the_logits(name: str) -> None:
    """Where so much surety leaves the cross-entropy itself without a gradient."""
    net, images, labels = linear(5)
    threat = halfway(net, images, labels, LINF)
    wanted = closed_form(net, images, labels, threat)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(3000)
    step = {"step_size": threat.epsilon / 4} if name == "pgd" else {}
    own = STEPS[name].model_copy(update=step)
    assert torch.equal(attack(name, net, images, labels, threat, own, 0).success, wanted)


def test_the_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [0, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_more_queries_climb_higher_and_never_past_what_is_possible(threat: Threat) -> None:
    net, images, labels = linear(3, 3)
    threat = threat.model_copy(update={"epsilon": threat.epsilon / 2})
    wanted = closed_form(net, images, labels, threat)
    rates = []
    for queries in (1, 30, 1000):
        found = attack("square", net, images, labels, threat, square.Params(queries=queries), 0).success
        assert not (found & ~wanted).any()
        rates.append(int(found.sum()))
    assert rates[0] <= rates[1] < rates[2]
    assert rates[2] >= 0.5 * int(wanted.sum())


def test_square_asks_as_often_as_it_says() -> None:
    class Counting(nn.Module):
        asked = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)

    net = Counting()
    square.perturb(
        net,
        torch.rand(2, 1, 8, 8),
        torch.zeros(2, dtype=torch.long),
        LINF,
        square.Params(queries=17),
        torch.Generator(),
    )
    assert net.asked == 17


def moved_bar() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Class 0 while the left half is the lighter one; a bar on the left."""

    class Halves(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            half = images.shape[3] // 2
            return torch.stack([images[..., :half].sum((1, 2, 3)), images[..., half:].sum((1, 2, 3))], dim=1)

    images = torch.zeros(3, 1, 16, 16)
    images[..., 4:12, 5:7] = 1
    return Halves(), images, torch.zeros(3, dtype=torch.long)


def test_the_spatial_attack_turns_and_moves_within_its_own_budget() -> None:
    net, images, labels = moved_bar()
    still = {"degrees": 0.0, "translate": 0.0}
    assert not attack("spatial", net, images, labels, LINF, spatial.Params(**still), 0).success.any()  # type: ignore[arg-type]
    found = attack("spatial", net, images, labels, LINF, spatial.Params(degrees=0.0, translate=0.25, tries=40), 0)
    assert found.success.all()
    assert float((found.images - images).abs().max()) > LINF.epsilon, "it has its own budget"
    assert found.images.sum((1, 2, 3)).tolist() == pytest.approx([16.0] * 3, abs=0.5), "moved, nothing more"
    near = spatial.Params(degrees=0.0, translate=0.1, search="grid", rotations=1, translations=5)
    assert not attack("spatial", net, images, labels, LINF, near, 0).success.any()
    turned = spatial.Params(degrees=180.0, translate=0.0, search="grid", rotations=5, translations=1)
    assert attack("spatial", net, images, labels, LINF, turned, 0).success.all()


@pytest.mark.parametrize(
    ("shape", "side", "first"), [((28, 28), 5, 1), ((32, 32), 6, 1), ((12, 12), 2, 1), ((3, 9), 1, 0)]
)
def test_square_begins_with_five_by_five_pairs_under_l2(shape: tuple[int, int], side: int, first: int) -> None:
    grey = torch.full((2, 3, *shape), 0.5)
    change = square._tiles(grey, 0.4, square._Draw(torch.Generator().manual_seed(0), grey)) - grey
    assert torch.allclose(change.flatten(1).norm(dim=1), torch.tensor(0.4))
    rows = change.abs().sum((0, 1, 3)).nonzero()[:, 0]
    count = min(square.TILES, shape[0] // side)
    assert rows.tolist() == list(range(first, first + count * side))
    tile = change[:, :, first : first + side, (shape[1] - 5 * side) // 2 :][..., :side]
    up, down = ((sign * tile > 0).flatten(2).any(2) for sign in (1, -1))
    assert (up & down).all() if side > 1 else (up ^ down).all(), "a bump beside a dip, where there is room"
    assert not torch.allclose(change[0], change[1]), "each image has its own signs"


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd_ce", "apgd_t", "square"])
@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_a_target_is_reached_where_it_can_be(name: str, threat: Threat) -> None:
    """The same files, which know nothing of targets."""
    net, images, labels = linear(4)
    threat = threat.model_copy(update={"epsilon": threat.epsilon * 2})
    targets = (labels + 1 + torch.arange(len(labels)) % 3) % 4
    few = {"queries": 300} if name == "square" else {}
    params = STEPS.get(name) or importlib.import_module(f"tasks.attacks.{name}").Params(**few)
    found = attack(name, net, images, labels, threat, params, 0, targets=targets)
    assert torch.equal(found.success, found.answers == targets)
    assert found.success.double().mean() > (0.25 if name in ("fgsm", "square") else 0.6)
    change = (found.images - images).flatten(1)
    assert (change.abs().amax(1) if threat.norm == "linf" else change.norm(dim=1)).max() <= threat.epsilon + 1e-5
    with pytest.raises(ValueError, match="a target must be another class than the label, image 0 has both"):
        attack(name, net, images, labels, threat, params, 0, targets=labels)
    with pytest.raises(ValueError, match="48 labels want as many int64 targets"):
        attack(name, net, images, labels, threat, params, 0, targets=targets[:3])


@pytest.mark.parametrize("name", sorted(STEPS))
def test_bf16_steps_have_fp32_verdicts(name: str) -> None:
    torch.manual_seed(0)
    net, images = nsl_cnn.build(4, 3, 16).train(), torch.rand(32, 3, 16, 16)
    labels = logits_of(net, images).argmax(1)
    threat = Threat(norm="linf", epsilon=0.02)
    params = pgd.Params(steps=10, step_size=0.005, drop=True) if name == "pgd" else STEPS[name]
    slow = attack(name, net, images, labels, threat, params, 0)
    fast = attack(name, net, images, labels, threat, params, 0, precision="bf16")
    assert torch.equal(fast.answers, logits_of(net, fast.images).argmax(1))
    assert torch.equal(fast.success, fast.answers != labels)
    assert fast.images.dtype == torch.float32
    assert float((fast.images - images).abs().max()) <= 0.02 + 1e-6
    assert abs(int(fast.success.sum()) - int(slow.success.sum())) <= 2
    assert net.training
    again = attack(name, net, images, labels, threat, params, 0, precision="bf16")
    assert torch.equal(again.images, fast.images)


def test_cost_is_in_gradients() -> None:
    assert cost(fgsm, fgsm.Params()) == 1
    assert cost(pgd, pgd.Params(steps=20, step_size=0.01, restarts=5)) == 100
    assert cost(apgd_ce, apgd_ce.Params()) == 101
    assert cost(apgd_t, apgd_t.Params()) == 909
    assert cost(square, square.Params(queries=3000)) == 1000
    assert cost(spatial, spatial.Params(search="grid")) == pytest.approx(775 / 3)


def test_the_margin_is_above_zero_where_the_image_fools() -> None:
    net, images, labels = linear(3)
    found = margin(net, images, labels)
    assert (found <= 0).all()
    assert (margin(net, images, (labels + 1) % 3) > 0).all()
    assert math.isfinite(float(found.sum()))
