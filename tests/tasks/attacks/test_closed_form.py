"""FGSM, PGD and the steps they share against what can be worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tasks.attacks import attack, direction, fgsm, input_gradient, pgd, project, random_start
from tasks.config.params import Threat

THREAT = Threat(norm="linf", epsilon=0.1)


@pytest.fixture(params=[1, 3])
def linear(request: pytest.FixtureRequest) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A linear two-class softmax, and images so far from 0 and 1 that nothing is cut."""
    torch.manual_seed(0)
    channels = request.param
    net = nn.Sequential(nn.Flatten(), nn.Linear(channels * 36, 2))
    return net, 0.2 + 0.6 * torch.rand(16, channels, 6, 6), torch.arange(16) % 2


@pytest.mark.parametrize("drop", [False, True])
def test_on_a_linear_network_the_attacks_are_epsilon_times_the_sign(
    linear: tuple[nn.Module, torch.Tensor, torch.Tensor], drop: bool
) -> None:
    net, images, labels = linear
    weight = net[1].weight.detach()  # type: ignore[index,union-attr]
    # the logit of the other class less that of the label grows along ±(w₁ − w₀)
    sides = torch.where(labels == 0, 1.0, -1.0)[:, None, None, None]
    worst = images + THREAT.epsilon * (weight[1] - weight[0]).sign().reshape(images[:1].shape) * sides
    found = attack("fgsm", net, images, labels, THREAT, fgsm.Params(), 0)
    assert torch.equal(found.images, worst)
    params = pgd.Params(steps=12, step_size=0.03, restarts=2, drop=drop)
    found = attack("pgd", net, images, labels, THREAT, params, 0)
    with torch.no_grad():
        wanted = net(worst).argmax(1)
    assert torch.equal(found.answers, wanted)
    standing = wanted == labels if drop else torch.ones(16, dtype=torch.bool)
    assert torch.allclose(found.images[standing], worst[standing], atol=1e-7)
    assert found.right.any()


def test_pixels_at_the_border_stay_in_it(linear: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    net, images, labels = linear
    images = images.round()
    found = attack("fgsm", net, images, labels, THREAT, fgsm.Params(), 0)
    moved = found.images - images
    assert set(moved.abs().mul(10).round().unique().tolist()) <= {0.0, 1.0}
    assert found.images.min() >= 0
    assert found.images.max() <= 1


def test_pgd_finds_what_fgsm_steps_over() -> None:
    """Two ramps: the cross-entropy is highest 0.05 away, and a step of the whole 0.1 lands on the other side."""

    class Ridge(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            height = 1 - 20 * (images.mean((1, 2, 3)) - 0.55).abs()  # 1 on the ridge, 0 at 0.5 and at 0.6
            return torch.stack([torch.full_like(height, 0.5), height], dim=1)

    images, labels = torch.full((1, 1, 2, 2), 0.501), torch.zeros(1, dtype=torch.long)
    weak = attack("fgsm", Ridge(), images, labels, THREAT, fgsm.Params(), 0)
    strong = attack("pgd", Ridge(), images, labels, THREAT, pgd.Params(steps=20, step_size=0.01), 0)
    assert not weak.success.any()
    assert strong.success.all()


def test_the_gradient_is_each_images_own(linear: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    net, images, labels = linear
    gradient, logits = input_gradient(net, images, labels)
    weight = net[1].weight.detach()  # type: ignore[index,union-attr]
    towards = (weight[1 - labels] - weight[labels]).reshape(images.shape)
    assert torch.allclose(gradient, towards, atol=1e-6)
    assert torch.equal(logits, net(images))
    alone, _ = input_gradient(net, images[3:4], labels[3:4])
    assert torch.allclose(alone[0], gradient[3], atol=1e-7)


def test_steps_and_projections_by_hand() -> None:
    change = torch.tensor([[[[3.0, -4.0]]], [[[0.0, 0.0]]]])
    assert direction(change, "linf").tolist() == [[[[1, -1]]], [[[0, 0]]]]
    for scale in (1, 1e-24, 1e-38, 1e24):  # also where squares are 0, or infinite
        found = direction(change * scale, "l2")
        assert torch.allclose(found, torch.tensor([[[[0.6, -0.8]]], [[[0.0, 0.0]]]]), atol=1e-4), scale
    clean = torch.full((2, 1, 1, 2), 0.5)
    assert torch.allclose(project(clean + change, clean, "linf", 0.25)[0], torch.tensor([[[0.75, 0.25]]]))
    assert torch.allclose(project(clean + change, clean, "l2", 0.25)[0], torch.tensor([[[0.65, 0.3]]]))
    within = clean + 0.01 * change
    assert torch.equal(project(within, clean, "l2", 0.25), within)
    assert project(clean + change, clean, "linf", 0.9)[0].tolist() == [[[1.0, 0.0]]]
    for wrong in (lambda: direction(change, "l1"), lambda: project(change, clean, "l1", 0.1)):
        with pytest.raises(ValueError, match="norm must be linf or l2, got 'l1'"):
            wrong()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball(norm: str) -> None:
    clean = torch.full((4000, 1, 1, 2), 0.5)
    change = random_start(clean, norm, 0.2, torch.Generator().manual_seed(0)).flatten(1) - 0.5
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert size.max() <= 0.2 + 1e-6
    # in two dimensions a quarter of the ball lies within half its radius
    assert float((size < 0.1).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert change.mean(0).abs().max() < 0.01
    with pytest.raises(ValueError, match="norm must be linf or l2"):
        random_start(clean, "l1", 0.2, torch.Generator())


def test_a_random_start_is_drawn_anew_for_each_seed_and_restart(
    linear: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    net, images, labels = linear
    params = pgd.Params(steps=1, step_size=0.1)
    one, other = (attack("pgd", net, images, labels, THREAT, params, seed).images for seed in (1, 2))
    assert not torch.equal(one, other)
    first, twice = (
        pgd.perturb(net, images, labels, THREAT, params, torch.Generator().manual_seed(seed)) for seed in (1, 1)
    )
    assert torch.equal(first, twice)


def test_a_step_wider_than_the_ball_is_refused(linear: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    net, images, labels = linear
    with pytest.raises(ValueError, match=r"step_size must be at most 2 × epsilon = 0\.2, the ball's width, got 2"):
        attack("pgd", net, images, labels, THREAT, pgd.Params(steps=10, step_size=2.0), 0)


def test_steps_that_do_not_reach_the_edge_are_refused(linear: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    """As they do not where the radius is changed and the steps are not: what they find would pass for robustness."""
    net, images, labels = linear
    wide = Threat(norm="l2", epsilon=1.5)
    with pytest.raises(ValueError, match=r"steps × step_size must reach epsilon = 1\.5, .*got 20 × 0\.0125 = 0\.25"):
        attack("pgd", net, images, labels, wide, pgd.Params(steps=20, step_size=0.0125), 0)
    assert pgd.Params(steps=20).step(wide) == pytest.approx(0.1875)
    assert pgd.Params(steps=2).step(wide) == 1.5
