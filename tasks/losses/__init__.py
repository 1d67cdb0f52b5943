"""Losses: one file each, with `Params` and `loss(net, images, labels, weights, params, threat, generator)`.

A loss is of the training alone: what is saved, served and evaluated is the bare network. It is a weighted mean of one
number for each image, so that a batch may be gone through in parts. A loss that has rules for its parameters beyond
their types brings `check(params, threat)`. One that trains on adversarial images of its own brings its two halves too:
`adversarial(net, images, labels, params, threat, generator)`, the images, and
`loss_at(net, images, adversarial, labels, weights, params)`, the loss once they are made; `loss` does both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from tasks.attacks import Objective, check_steps, direction, project, random_start, usual_step, value_and_gradient
from tasks.config.params import Count, Frozen, Threat, check_length
from tasks.engine.bf16 import attack_network
from tasks.engine.inference import evaluating


def weighted_cross_entropy(logits_BK: torch.Tensor, labels_B: torch.Tensor, weights_B: torch.Tensor) -> torch.Tensor:
    """Σ weight · cross-entropy / Σ weight, a scalar in fp32; 0 where every weight is 0."""
    losses_B = F.cross_entropy(logits_BK.float(), labels_B, reduction="none")
    total = weights_B.sum().clamp_min(torch.finfo(losses_B.dtype).tiny)
    return (losses_B * weights_B).sum() / total


def cross_entropy(labels_B: torch.Tensor) -> Objective:
    """What the inner attack of a loss climbs, as the papers have it; what is measured climbs `attacks.odds_against`."""
    return lambda logits_bK, part: F.cross_entropy(logits_bK, labels_B[part], reduction="none")


class Inner(Frozen):
    """The PGD that a loss runs within the threat model; null is the usual choice for the other values."""

    steps: Count = 10
    step_size: float | None = Field(default=None, gt=0)  # in the norm, pixels in [0, 1]; null: 2.5 × epsilon / steps
    epsilon: float | None = Field(default=None, gt=0)  # radius; null: the threat model's

    def radius(self, threat: Threat) -> float:
        return threat.epsilon if self.epsilon is None else self.epsilon

    def step(self, threat: Threat) -> float:
        return usual_step(self.steps, self.radius(threat)) if self.step_size is None else self.step_size


def check_inner(name: str, inner: Inner, threat: Threat) -> None:
    """ValueError for a radius that leaves [0, 1], and for steps that make no sense within the ball."""
    radius = inner.radius(threat)
    check_length(f"{name}: epsilon must be", threat.norm, radius)
    check_steps(name, inner.steps, inner.step(threat), Threat(norm=threat.norm, epsilon=radius))


def ascend(
    net: nn.Module,
    start_BCHW: torch.Tensor,
    clean_BCHW: torch.Tensor,
    inner: Inner,
    threat: Threat,
    rise: Objective,
) -> torch.Tensor:
    """Steps from `start` up `rise` within the ball.

    In eval mode, so that dropout and batch norm see the training pass alone; under bf16 autocast on the network's fast
    copy. Returns images without a gradient.
    """
    radius, step = inner.radius(threat), inner.step(threat)
    found_BCHW = project(start_BCHW, clean_BCHW, threat.norm, radius)
    with evaluating(net):
        steps_on = attack_network(net, clean_BCHW)
        for _ in range(inner.steps):
            gradient_BCHW, *_ = value_and_gradient(steps_on, found_BCHW, rise)
            moved_BCHW = found_BCHW + step * direction(gradient_BCHW, threat.norm)
            found_BCHW = project(moved_BCHW, clean_BCHW, threat.norm, radius)
    return found_BCHW


def adversarial(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    params: Inner,
    threat: Threat,
    generator: torch.Generator,
) -> torch.Tensor:
    """B×C×H×W images within the ball that raise the cross-entropy, by PGD from a random start; no gradient."""
    start_BCHW = random_start(images_BCHW, threat.norm, params.radius(threat), generator)
    return ascend(net, start_BCHW, images_BCHW, params, threat, cross_entropy(labels_B))


def weighted_mean(values_B: torch.Tensor, weights_B: torch.Tensor) -> torch.Tensor:
    """Σ weight · value / Σ weight, a scalar in fp32; 0 where every weight is 0."""
    share_B = weights_B / weights_B.sum().clamp_min(torch.finfo(weights_B.dtype).tiny)
    return (values_B.float() * share_B).sum()


def divergence(clean_BK: torch.Tensor, adversarial_BK: torch.Tensor) -> torch.Tensor:
    """KL(softmax(clean) ‖ softmax(adversarial)) of each image, from logits, in fp32 and never below 0.

    From log-probabilities: no logarithm of a probability that has become 0.
    """
    clean_BK, adversarial_BK = clean_BK.float().log_softmax(1), adversarial_BK.float().log_softmax(1)
    found_B = (clean_BK.exp() * (clean_BK - adversarial_BK)).sum(1)
    # Close to 0 rounding makes it negative, where a clamp would have no gradient: an ascent from there never moved.
    return found_B + (found_B.clamp_min(0) - found_B).detach()


def repeatable(
    module: Any,
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    weights_B: torch.Tensor,
    params: Any,
    threat: Threat,
    generator: torch.Generator,
) -> Callable[[], torch.Tensor]:
    """The loss of one batch as a function of the weights alone, for what must see it twice.

    A loss with `adversarial` and `loss_at` makes its adversarial images once, on the weights as they are now; another
    one is run anew each time, with the same draws.
    """
    if hasattr(module, "adversarial"):
        adversarial_BCHW = module.adversarial(net, images_BCHW, labels_B, params, threat, generator)

        def at_now() -> torch.Tensor:
            value: torch.Tensor = module.loss_at(net, images_BCHW, adversarial_BCHW, labels_B, weights_B, params)
            return value

        return at_now
    state = generator.get_state()

    def anew() -> torch.Tensor:
        generator.set_state(state)
        value: torch.Tensor = module.loss(net, images_BCHW, labels_B, weights_B, params, threat, generator)
        return value

    return anew
