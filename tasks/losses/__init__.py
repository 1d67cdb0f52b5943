"""Losses: one file each; this is their base.

A loss is of the training alone: what is saved, served and evaluated is the bare network. It is a weighted mean of one
number for each image, so that a batch may be gone through in parts. A file has `Params` and one of two things:

- `loss_at(net, batch, adversarial_BCHW, params)`, the loss once the adversarial images are made. Its Params are an
  `Inner`, and the images are PGD's on the cross-entropy, unless the file brings an
  `adversarial(net, batch, params, threat, generator)` of its own;
- `loss(net, batch, params, threat, generator)`, where the loss cannot be taken apart so.

Parameters with rules beyond their types have a method `check(threat)`. A file with DEFENDS = False promises nothing
under attack. `Loss` composes the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from tasks.attacks import (
    Objective,
    check_steps,
    direction,
    odds_against,
    project,
    random_start,
    usual_step,
    value_and_gradient,
)
from tasks.config.kinds import kind
from tasks.config.params import Count, Frozen, KindParams, Threat, check_length
from tasks.engine.batch import Batch
from tasks.engine.bf16 import attack_network
from tasks.engine.inference import evaluating


@dataclass(frozen=True)
class Loss:
    """A loss file with its own parameters under a threat model."""

    module: Any
    params: Any
    threat: Threat

    @property
    def name(self) -> str:
        """The file's name."""
        return str(self.module.__name__).rpartition(".")[2]

    @property
    def defends(self) -> bool:
        """Whether it promises anything under attack."""
        return bool(getattr(self.module, "DEFENDS", True))

    @property
    def in_halves(self) -> bool:
        """Whether the adversarial images are made first, and the loss is worked out on them."""
        return hasattr(self.module, "loss_at")

    def __call__(self, net: nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """A scalar for one `backward`, in fp32; adversarial images are made on the weights as they are."""
        if self.in_halves:
            return self.loss_at(net, batch, self.adversarial(net, batch, generator))
        value: torch.Tensor = self.module.loss(net, batch, self.params, self.threat, generator)
        return value

    def adversarial(self, net: nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """B×C×H×W images within the ball, without a gradient, made in eval mode."""
        make = getattr(self.module, "adversarial", adversarial)
        images_BCHW: torch.Tensor = make(net, batch, self.params, self.threat, generator)
        return images_BCHW

    def loss_at(self, net: nn.Module, batch: Batch, adversarial_BCHW: torch.Tensor) -> torch.Tensor:
        """The loss once the adversarial images are made."""
        value: torch.Tensor = self.module.loss_at(net, batch, adversarial_BCHW, self.params)
        return value

    def repeatable(self, net: nn.Module, batch: Batch, generator: torch.Generator) -> Callable[[], torch.Tensor]:
        """The loss of one batch as a function of the weights alone, for what must see it twice.

        A loss in halves makes its adversarial images once, on the weights as they are now; another one is run anew
        each time, with the same draws.
        """
        if self.in_halves:
            adversarial_BCHW = self.adversarial(net, batch, generator)
            return lambda: self.loss_at(net, batch, adversarial_BCHW)
        state = generator.get_state()

        def anew() -> torch.Tensor:
            generator.set_state(state)
            return self(net, batch, generator)

        return anew


def loss_of(name: str, params: KindParams, threat: Threat, where: str = "train.loss.params") -> Loss:
    """The loss of that file with these parameters, checked once. where: the key in params.yaml, for an error."""
    module, own = kind("losses", name, params, where)
    if hasattr(own, "check"):
        own.check(threat)
    return Loss(module, own, threat)


def weighted_cross_entropy(logits_BK: torch.Tensor, labels_B: torch.Tensor, weights_B: torch.Tensor) -> torch.Tensor:
    """Σ weight · cross-entropy / Σ weight, a scalar in fp32; 0 where every weight is 0."""
    losses_B = F.cross_entropy(logits_BK.float(), labels_B, reduction="none")
    total = weights_B.sum().clamp_min(torch.finfo(losses_B.dtype).tiny)
    return (losses_B * weights_B).sum() / total


class Inner(Frozen):
    """The PGD that a loss runs within the threat model; null is the usual choice for the other values."""

    steps: Count = 10
    step_size: float | None = Field(default=None, gt=0)  # in the norm, pixels in [0, 1]; null: 2.5 × epsilon / steps
    epsilon: float | None = Field(default=None, gt=0)  # radius; null: the threat model's

    def radius(self, threat: Threat) -> float:
        return threat.epsilon if self.epsilon is None else self.epsilon

    def step(self, threat: Threat) -> float:
        return usual_step(self.steps, self.radius(threat)) if self.step_size is None else self.step_size

    def check(self, threat: Threat) -> None:
        """ValueError for a radius that leaves [0, 1], and for steps that make no sense within the ball."""
        name, radius = type(self).__module__.rpartition(".")[2], self.radius(threat)
        check_length(f"{name}: epsilon must be", threat.norm, radius)
        check_steps(name, self.steps, self.step(threat), Threat(norm=threat.norm, epsilon=radius))


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
    net: nn.Module, batch: Batch, params: Inner, threat: Threat, generator: torch.Generator
) -> torch.Tensor:
    """B×C×H×W images within the ball that raise the cross-entropy, by PGD from a random start; no gradient.

    It climbs the odds against the label, whose gradient has the cross-entropy's direction and does not vanish where the
    network is very sure.
    """
    start_BCHW = random_start(batch.images_BCHW, threat.norm, params.radius(threat), generator)
    return ascend(net, start_BCHW, batch.images_BCHW, params, threat, odds_against(batch.labels_B))


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
