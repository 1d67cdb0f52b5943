"""Adversarial training, TRADES, MART and SCORE against values worked out by hand, and AWP against its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import nsl_cnn
from tasks.attacks import random_start
from tasks.config.kinds import module_of
from tasks.config.params import Awp, Threat
from tasks.engine.batch import Batch
from tasks.losses import Inner, Loss, divergence, loss_of, mart, nsl, pgd_at, plain, score, trades, weighted_mean
from tasks.losses._awp import perturbed

THREAT = Threat(norm="linf", epsilon=0.1)
ONE = torch.ones(1)
LABEL = torch.tensor([1])
IMAGE = torch.full((1, 1, 1, 2), 0.5)


def two_pixels() -> nn.Module:
    """Logits (0, 3a − 4b) of an image of two pixels: (0, −0.5) at (0.5, 0.5), and (0, −1.2) at its worst within 0.1."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0, 0.0], [3.0, -4.0]]))
    return net


def p(logit: float) -> float:
    """Probability of class 1 where the logits are 0 and `logit`."""
    return 1 / (1 + math.exp(-logit))


def kl(first: float, second: float) -> float:
    a, b = p(first), p(second)
    return a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))


def value(module: Any, threat: Threat = THREAT, weight: torch.Tensor = ONE, **given: object) -> float:
    params = module.Params(**given)
    return Loss(module, params, threat)(two_pixels(), Batch(IMAGE, LABEL, weight), torch.Generator()).item()


def test_adversarial_training_by_hand() -> None:
    assert value(pgd_at) == pytest.approx(-math.log(p(-1.2)), rel=1e-5)
    assert value(pgd_at, clean=0.25) == pytest.approx(-0.75 * math.log(p(-1.2)) - 0.25 * math.log(p(-0.5)), rel=1e-5)
    # under L2 the worst is 0.1 along (−3, 4) / 5: the logit falls by 0.1 · 5
    assert value(pgd_at, Threat(norm="l2", epsilon=0.1), steps=30) == pytest.approx(-math.log(p(-1.0)), rel=0.01)
    assert value(pgd_at, epsilon=0.05) == pytest.approx(-math.log(p(-0.85)), rel=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e5])
def test_the_inner_attack_of_a_saturated_network_does_not_stand_still(scale: float) -> None:
    """The label's probability rounds to 1 and the cross-entropy's gradient to 0; the worst image is where it was."""
    net = two_pixels()
    with torch.no_grad():
        net[1].weight.mul_(scale)
    batch = Batch(torch.tensor([[[[0.8, 0.2]]]]), LABEL, ONE)
    found = Loss(pgd_at, pgd_at.Params(), THREAT).adversarial(net, batch, torch.Generator().manual_seed(0))
    assert torch.allclose(found.flatten(), torch.tensor([0.7, 0.3]), atol=1e-6)


def test_trades_by_hand() -> None:
    """The KL from the clean answer is highest where the logit is, or lowest: at an end of the ball."""
    ends = kl(-0.5, -1.2), kl(-0.5, 0.2)
    found = (value(trades, beta=2.0) + math.log(p(-0.5))) / 2
    assert min(abs(found - end) for end in ends) < 1e-5
    assert value(trades, beta=0.0) == pytest.approx(-math.log(p(-0.5)), rel=1e-5)


def test_mart_by_hand() -> None:
    boosted = -math.log(p(-1.2)) - math.log(1 - (1 - p(-1.2)))
    assert value(mart, beta=0.0) == pytest.approx(boosted, rel=1e-5)
    assert value(mart, beta=5.0) == pytest.approx(boosted + 5 * kl(-0.5, -1.2) * (1 - p(-0.5)), rel=1e-5)


def test_mart_keeps_a_gradient_where_a_wrong_class_is_all_but_certain() -> None:
    """Logits (0, 3a − 4b) × 100 at (0.5, 0.5): the label has probability e^−50, and both terms have the slope 1."""
    net = two_pixels()
    with torch.no_grad():
        net[1].weight.mul_(100)
    batch = Batch(IMAGE, LABEL, ONE)
    loss = Loss(mart, mart.Params(beta=0.0), THREAT).loss_at(net, batch, IMAGE)
    assert loss.item() == pytest.approx(2 * 50, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, net[1].weight)
    assert torch.allclose(gradient[1], torch.full((2,), -2 * 0.5), rtol=1e-4)


def test_score_by_hand() -> None:
    assert value(score, smoothing=0.0) == pytest.approx(2 * (1 - p(-1.2)) ** 2, rel=1e-5)
    assert value(score) == pytest.approx(2 * (0.95 - p(-1.2)) ** 2, rel=1e-5)
    assert value(score, clip=0.5) == pytest.approx(2 * (0.95 - p(-1.2)) ** 2 - 0.5, rel=1e-5)
    assert value(score, clip=2.0) == 0
    # With two terms the attack goes as far from the clean answer as it can, to one end of the ball or to the other.
    ends = [2 * (p(-0.5) - p(end)) ** 2 for end in (-1.2, 0.2)]
    second = (value(score, beta=3.0) - 2 * (0.95 - p(-0.5)) ** 2) / 3
    assert min(abs(second - end) for end in ends) < 1e-5


def test_scores_attack_climbs_its_own_distance_and_not_the_cross_entropy() -> None:
    """One small step is along the gradient of the squared distance, which among three classes is not the odds'."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0, -1.0], [6.0, 0.0], [-6.0, 0.0]]))
    image, threat = torch.full((1, 1, 1, 2), 0.5), Threat(norm="l2", epsilon=0.4)
    batch = Batch(image, torch.tensor([0]), ONE)
    ways = {}
    for module in (score, pgd_at):
        made = module.Params(steps=1, step_size=1e-3)
        found = Loss(module, made, threat).adversarial(net, batch, torch.Generator().manual_seed(1))
        start = random_start(image, "l2", 0.4, torch.Generator().manual_seed(1))
        ways[module] = (found - start).flatten() / 1e-3
    start = start.requires_grad_()
    wanted = score.targets(batch.labels_B, 3, score.Params())
    distance = (net(start).softmax(1) - wanted).square().sum()
    (gradient,) = torch.autograd.grad(distance, start)
    assert torch.allclose(ways[score], (gradient / gradient.norm()).flatten(), atol=1e-3)
    assert not torch.allclose(ways[score], ways[pgd_at], atol=1e-3)


def test_weights_are_shares() -> None:
    values = torch.tensor([1.0, 3.0])
    assert weighted_mean(values, torch.tensor([1.0, 3.0])).item() == pytest.approx(2.5)
    assert weighted_mean(values, torch.zeros(2)).item() == 0


def test_the_divergence_is_torchs_and_stays_finite() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(5, 4), torch.randn(5, 4)
    wanted = F.kl_div(b.log_softmax(1), a.softmax(1), reduction="none").sum(1)
    assert torch.allclose(divergence(a, b), wanted, atol=1e-6)
    assert divergence(a, a).tolist() == [0] * 5
    sure = torch.tensor([[300.0, -300.0]], requires_grad=True)
    found = divergence(sure, -sure.detach())
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


@pytest.mark.parametrize("module", [pgd_at, trades, mart, score])
def test_the_attack_sees_eval_mode_and_the_loss_training_mode(module: Any) -> None:
    """Batch norm's statistics move once a training pass, and not for the attack's steps."""
    net = nn.Sequential(nn.BatchNorm2d(1, momentum=None), nn.Flatten(), nn.Linear(16, 3)).train()
    images, labels = torch.rand(4, 1, 4, 4), torch.arange(4) % 3
    loss, batch = Loss(module, module.Params(), THREAT), Batch(images, labels, torch.ones(4))
    adversarial = loss.adversarial(net, batch, torch.Generator())
    assert int(net[0].num_batches_tracked) == 0  # type: ignore[arg-type]
    assert net.training
    assert float((adversarial - images).abs().max()) <= 0.1 + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    loss.loss_at(net, batch, adversarial)
    assert int(net[0].num_batches_tracked) == (1 if module in (pgd_at, score) else 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [pgd_at, trades, mart, score])
def test_the_loss_is_higher_on_what_it_made(module: Any) -> None:
    torch.manual_seed(0)
    net, images, labels = nsl_cnn.build(4, 3, 16), torch.rand(8, 3, 16, 16), torch.arange(8) % 4
    loss, batch = Loss(module, module.Params(), THREAT), Batch(images, labels, torch.ones(8))
    made = loss.adversarial(net, batch, torch.Generator())
    at = [loss.loss_at(net, batch, x).item() for x in (images, made)]
    assert at[1] > at[0]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"epsilon": 8.0}, r"trades: epsilon must be under 1, .*got 8; for 8/255 write 0\.03137"),
        (
            {"steps": 3, "step_size": 0.02},
            r"trades: steps × step_size must reach epsilon = 0\.1, .*got 3 × 0\.02 = 0\.06",
        ),
        ({"step_size": 0.3}, r"trades: step_size must be at most 2 × epsilon = 0\.2, the ball's width, got 0\.3"),
    ],
)
def test_radii_and_steps_that_make_no_sense_are_refused(given: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        trades.Params(**given).check(THREAT)  # type: ignore[arg-type]


def test_the_usual_step_reaches_across_the_ball() -> None:
    assert Inner(steps=10).step(THREAT) == pytest.approx(0.025)
    assert Inner(steps=1).step(THREAT) == pytest.approx(0.1)
    assert Inner(steps=5, step_size=0.03).step(THREAT) == 0.03


def test_the_weights_move_by_a_share_of_their_length_uphill_and_come_back() -> None:
    net = two_pixels()
    weight = net[1].weight  # type: ignore[index,union-attr]
    before = weight.detach().clone()  # type: ignore[union-attr,operator]
    run = Loss(plain, plain.Params(), THREAT).repeatable(net, Batch(IMAGE, LABEL, ONE), torch.Generator())
    with perturbed(net, run, Awp(gamma=0.1)):
        # the loss's gradient is (1 − p) · (0.5, 0.5) for class 0 and minus that for class 1: of length 1, ±0.5 each
        wanted = before + 0.1 * before.norm() * torch.tensor([[0.5, 0.5], [-0.5, -0.5]])
        assert torch.allclose(weight, wanted, atol=1e-6)  # type: ignore[arg-type]
        value = run()
        value.backward()
    assert torch.equal(weight, before)  # type: ignore[arg-type]
    moved = -0.5 - 2 * 0.5 * 0.1 * 5  # both logits move by half of 0.1 · ‖w‖, against each other
    assert value.item() == pytest.approx(-math.log(p(moved)), rel=1e-5)
    gradient = (1 - p(moved)) * torch.tensor([[0.5, 0.5], [-0.5, -0.5]])
    assert torch.allclose(weight.grad, gradient, atol=1e-6)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("module", [plain, nsl, pgd_at, trades, mart, score])
def test_the_perturbation_adds_to_any_loss(module: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).train()
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    params = module.Params(**({"step_size": 0.05} if module is nsl else {}))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    batch = Batch(images, labels, torch.ones(6))
    run = Loss(module, params, THREAT).repeatable(net, batch, torch.Generator())
    with perturbed(net, run, Awp(gamma=0.05)):
        assert all(torch.equal(value, old) for value, old in zip(net.buffers(), _buffers(net, state), strict=True))
        above = run()
    assert all(weight.grad is None for weight in net.parameters())
    assert all(torch.equal(state[name], value) for name, value in net.named_parameters())
    assert above.item() > run().item()


def _buffers(net: nn.Module, state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [state[name] for name, _ in net.named_buffers()]


def test_an_error_inside_leaves_the_weights() -> None:
    net = two_pixels()
    before = net[1].weight.detach().clone()  # type: ignore[index,union-attr,operator]
    run = Loss(plain, plain.Params(), THREAT).repeatable(net, Batch(IMAGE, LABEL, ONE), torch.Generator())
    with pytest.raises(RuntimeError, match="stop"), perturbed(net, run, Awp(gamma=0.1)):
        raise RuntimeError("stop")
    assert torch.equal(net[1].weight, before)  # type: ignore[index,union-attr,arg-type]


@pytest.mark.parametrize("name", ["pgd_at", "mart", "score", "trades"])
def test_steps_under_bf16_climb_as_high(name: str) -> None:
    """They are taken on the network's fast copy, which is cast anew for the weights of each step."""
    torch.manual_seed(0)
    net = module_of("models", "nsl_cnn", "model.name").build(4, 1, 20).train()
    images, labels = torch.rand(8, 1, 20, 20), torch.arange(8) % 4
    loss, batch = loss_of(name, {}, THREAT), Batch(images, labels, torch.ones(8))
    for factor in (1.0, 3.0):
        with torch.no_grad():
            for weight in net.parameters():
                weight.mul_(factor)
        clean = net(images).detach()
        drawn = torch.Generator
        slow = loss.adversarial(net, batch, drawn().manual_seed(0))
        with torch.autocast("cpu", torch.bfloat16):
            quick = loss.adversarial(net, batch, drawn().manual_seed(0))
        assert quick.dtype == torch.float32
        assert float((quick - images).abs().max()) <= 0.1 + 1e-6
        assert not torch.equal(quick, slow), "not the same steps"
        moved = [(net(found).detach() - clean).norm() for found in (slow, quick)]
        assert moved[1] > 0.9 * moved[0] > 0


@pytest.mark.parametrize("bf16", [False, True])
def test_trades_leaves_no_image_where_it_began_however_sure_the_answer(bf16: bool) -> None:
    """At its start the divergence is smaller than rounding, of fp32 and all the more of bf16."""
    torch.manual_seed(0)
    net, images = nsl_cnn.build(4, 1, 20).eval(), torch.rand(64, 1, 20, 20)
    with torch.no_grad():
        list(net.parameters())[-2].mul_(200)  # the last layer's weight: answers that are all but certain
        sure = net(images).softmax(1).amax(1)
    assert sure.median() > 0.97
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        batch = Batch(images, torch.zeros(64, dtype=torch.long), torch.ones(64))
        found = trades.adversarial(net, batch, trades.Params(), THREAT, torch.Generator().manual_seed(0))
    assert (found - images).abs().flatten(1).amax(1).min() > 0.05
    with torch.no_grad():
        assert divergence(net(images), net(found)).mean() > 0.95  # as much as fp32 reaches, less a twentieth
