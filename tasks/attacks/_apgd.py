"""Auto-PGD (Croce and Hein, arXiv:2003.01690): PGD with momentum whose step sizes are its own business.

A step starts at 2ε and is halved, image by image, at checkpoints that come ever closer: where fewer than three quarters
of the steps since the last one went up, or where neither step nor best value changed. Then it goes on from the best
image so far. Differs: an image that is fooled is left alone from then on, for only the verdict counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

from tasks.attacks import direction, project, random_start, value_and_gradient
from tasks.config.params import Threat

MOMENTUM = 0.75  # weight of the new step against the last move; the paper's α
RISING = 0.75  # share of steps that must go up between two checkpoints; the paper's ρ

Rise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # logits_BK, labels_B, towards_B → B


@dataclass
class _Ascent:
    """Where each image that still stands is. All tensors are B first."""

    index: torch.Tensor
    clean: torch.Tensor
    labels: torch.Tensor
    towards: torch.Tensor
    here: torch.Tensor
    previous: torch.Tensor
    gradient: torch.Tensor
    value: torch.Tensor
    best: torch.Tensor
    best_value: torch.Tensor
    best_gradient: torch.Tensor
    step: torch.Tensor  # B×1×1×1
    rises: torch.Tensor
    checked_step: torch.Tensor
    checked_value: torch.Tensor

    def only(self, kept_B: torch.Tensor) -> _Ascent:
        return replace(self, **{field.name: getattr(self, field.name)[kept_B] for field in fields(self)})


def checkpoints(steps: int) -> list[int]:
    """Steps after which the step size is looked at: 0, 0.22·N, then 0.03·N closer each time, 0.06·N at least."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [math.ceil(round(share * steps, 9)) for share in shares[:-1]]  # 0.57 in floats is a little more


def ascend(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    towards_B: torch.Tensor,
    rise: Rise,
    threat: Threat,
    steps: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Images within the ball: the first that fools, or else the one where `rise` is highest."""
    norm, epsilon = threat.norm, threat.epsilon
    found_BCHW = random_start(images_BCHW, norm, epsilon, generator)
    value, gradient, fooled = _look(net, found_BCHW, labels_B, towards_B, rise)
    size = torch.full((len(labels_B), 1, 1, 1), 2 * epsilon, device=labels_B.device)
    now = _Ascent(
        index=torch.arange(len(labels_B), device=labels_B.device),
        clean=images_BCHW,
        labels=labels_B,
        towards=towards_B,
        here=found_BCHW.clone(),
        previous=found_BCHW.clone(),
        gradient=gradient,
        value=value,
        best=found_BCHW.clone(),
        best_value=value,
        best_gradient=gradient,
        step=size,
        rises=torch.zeros_like(labels_B),
        checked_step=size.clone(),
        checked_value=value,
    ).only(~fooled)
    looks, last = set(checkpoints(steps)), 0
    for at in range(1, steps + 1):
        if len(now.index) == 0:
            return found_BCHW
        now, fooled = _step(net, now, rise, threat, MOMENTUM if at > 1 else 1.0)
        found_BCHW[now.index[fooled]] = now.here[fooled]
        now = now.only(~fooled)
        if at in looks:
            _adapt(now, at - last)
            last = at
    found_BCHW[now.index] = now.best
    return found_BCHW


def _step(net: nn.Module, now: _Ascent, rise: Rise, threat: Threat, share: float) -> tuple[_Ascent, torch.Tensor]:
    """One step with momentum, and which images are fooled by it."""

    def within(moved_BCHW: torch.Tensor) -> torch.Tensor:
        return project(moved_BCHW, now.clean, threat.norm, threat.epsilon)

    up = within(now.here + now.step * direction(now.gradient, threat.norm))
    there = up if share == 1 else within(now.here + share * (up - now.here) + (1 - share) * (now.here - now.previous))
    value, gradient, fooled = _look(net, there, now.labels, now.towards, rise)
    better = value > now.best_value
    wide = better[:, None, None, None]
    after = replace(
        now,
        here=there,
        previous=now.here,
        gradient=gradient,
        value=value,
        best=torch.where(wide, there, now.best),
        best_value=torch.where(better, value, now.best_value),
        best_gradient=torch.where(wide, gradient, now.best_gradient),
        rises=now.rises + (value > now.value),
    )
    return after, fooled


def _adapt(now: _Ascent, since: int) -> None:
    """Halve the steps that lead nowhere, and go on from the best image there."""
    few = now.rises < RISING * since
    stuck = (now.checked_step == now.step).flatten() & (now.checked_value >= now.best_value)
    now.checked_step, now.checked_value = now.step.clone(), now.best_value.clone()
    halved = (few | stuck)[:, None, None, None]
    now.step = torch.where(halved, now.step / 2, now.step)
    now.here = torch.where(halved, now.best, now.here)
    now.gradient = torch.where(halved, now.best_gradient, now.gradient)
    now.rises = torch.zeros_like(now.rises)


def _look(
    net: nn.Module, images_BCHW: torch.Tensor, labels_B: torch.Tensor, towards_B: torch.Tensor, rise: Rise
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What rises, its gradient on the image, and whether the answer is not the label."""
    gradient_BCHW, value_B, logits_BK = value_and_gradient(
        net, images_BCHW, lambda logits_bK, part: rise(logits_bK, labels_B[part], towards_B[part])
    )
    return value_B, gradient_BCHW, logits_BK.argmax(1) != labels_B
