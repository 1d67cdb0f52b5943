"""Module robust criticality (RiFT, arXiv:2308.02533): how far a module's weight can be moved to raise the loss under
attack.

Differs: the ascent takes full-batch steps, goes back onto the ball's surface whenever it leaves it, and keeps the
highest loss; it is compared with other points of the ball.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from tasks.config.params import Params, Rift
from tasks.engine import stage

BATCH = 256  # images at a time where no gradient step depends on the batch
CHANCES = 2  # random points of each module's ball that the ascent is compared with


@dataclass(frozen=True)
class AttackedImages:
    """Images attacked once, on the weights as they were, on the network's device. fp32 N×C×H×W; int64 N."""

    images_NCHW: torch.Tensor
    labels_N: torch.Tensor


@dataclass(frozen=True)
class Criticality:
    """How much the loss on fixed adversarial images can be raised by moving one module's weight within the ball.

    An ascent finds a lower bound of the true maximum only; `elsewhere` is what it is compared with.
    """

    module: str
    parameters: int
    loss: float  # mean cross-entropy where it began
    reached: float  # the highest that the ascent found
    mrc: float  # reached − loss
    drop: float  # share of those images that is answered rightly no more where the ascent found the highest loss
    elsewhere: float  # the highest rise at other points: one step to the surface, random ones, the fine-tuned weight

    @property
    def exceeded(self) -> bool:
        """Whether the ascent missed a point of the ball that is worse than all it found."""
        return self.elsewhere > self.mrc


def report(modules: Sequence[Criticality]) -> None:
    """Say each module's criticality, and where the ascent is known to have missed more."""
    for each in modules:
        stage.say(f"rift: {each.module} MRC {each.mrc:.4f}, at the cost of {each.drop:.1%} robust accuracy")
        if each.exceeded:
            stage.say(
                f"rift: warning: the loss of {each.module} rises by {each.elsewhere:.4f} elsewhere in the ball, more "
                "than its MRC: ascent finds a lower bound only; raise rift.ascent_rate or rift.steps"
            )


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    """The weight of every convolution and linear layer, by the module's name: what RiFT may move."""
    found: dict[str, torch.Tensor] = {}
    for name, module in net.named_modules():
        if name and isinstance(module, nn.Conv2d | nn.Linear) and isinstance(module.weight, nn.Parameter):
            found[name] = module.weight
    if not found:
        raise ValueError("RiFT needs a network with a Conv2d or Linear module, got one without")
    return found


def in_use(net: nn.Module, fixed: AttackedImages) -> dict[str, torch.Tensor]:
    """Those weights that may be trained and that the answers hang on: a head may be frozen, or of no use any more."""
    found = {name: weight for name, weight in weights(net).items() if weight.requires_grad}
    value = functional.cross_entropy(net(fixed.images_NCHW[:2]), fixed.labels_N[:2])
    if found and value.requires_grad:
        gradients = torch.autograd.grad(value, list(found.values()), allow_unused=True)
        found = {name: found[name] for name, each in zip(list(found), gradients, strict=True) if each is not None}
    if not (found and value.requires_grad):
        raise ValueError("RiFT needs a Conv2d or Linear module that may be trained and is used, got none")
    return found


def characterise(net: nn.Module, fixed: AttackedImages, params: Params) -> list[Criticality]:
    """Module robust criticality of every module, the least critical first; `net` is left as it was."""
    found = []
    for name, weight in in_use(net, fixed).items():
        draws = stage.generator(params, "rift", "chance", name)
        chances = [torch.randn(weight.shape, generator=draws).to(weight) for _ in range(CHANCES)]
        found.append(_ascend(net, name, weight, fixed, params.rift, chances))
    return sorted(found, key=lambda each: (each.mrc, each.module))


def _ascend(
    net: nn.Module,
    name: str,
    weight: torch.Tensor,
    fixed: AttackedImages,
    choices: Rift,
    chances: Sequence[torch.Tensor],
) -> Criticality:
    start = weight.detach().clone()
    radius = choices.radius * start.norm().item()
    try:
        begun, right, gradient = _loss(net, weight, fixed)
        reached, left, steepest = begun, right, gradient
        for _ in range(choices.steps):
            with torch.no_grad():
                away = weight + choices.ascent_rate * gradient - start
                weight.copy_(start + away * min(1.0, radius / max(away.norm().item(), 1e-12)))
            value, count, gradient = _loss(net, weight, fixed)
            if value > reached:
                reached, left = value, count
        rises = [_rise(net, weight, start, towards, radius, begun, fixed) for towards in (steepest, *chances)]
    finally:
        with torch.no_grad():
            weight.copy_(start)
    drop = (right - left) / len(fixed.labels_N)
    return Criticality(name, weight.numel(), begun, reached, reached - begun, drop, max(rises))


def compared(
    net: nn.Module, found: Criticality, tuned: Mapping[str, torch.Tensor], fixed: AttackedImages, choices: Rift
) -> Criticality:
    """The criticality, its ascent also compared with the fine-tuned weight, brought back to the ball if it left it."""
    weight = weights(net)[found.module]
    start = weight.detach().clone()
    away = tuned[f"{found.module}.weight"] - start
    length = min(away.norm().item(), choices.radius * start.norm().item())
    try:
        rise = _rise(net, weight, start, away, length, found.loss, fixed)
    finally:
        with torch.no_grad():
            weight.copy_(start)
    return replace(found, elsewhere=max(found.elsewhere, rise))


def _rise(
    net: nn.Module,
    weight: torch.Tensor,
    start: torch.Tensor,
    towards: torch.Tensor,
    length: float,
    begun: float,
    fixed: AttackedImages,
) -> float:
    """How much higher than `begun` the loss is so far from `start`; the weight stays there."""
    with torch.no_grad():
        weight.copy_(start + towards * (length / max(towards.norm().item(), 1e-12)))
        return _loss(net, None, fixed)[0] - begun


def _loss(net: nn.Module, weight: torch.Tensor | None, fixed: AttackedImages) -> tuple[float, int, torch.Tensor]:
    """Mean cross-entropy over all images, how many are answered rightly, and the gradient for a weight, if any."""
    total, right, n = 0.0, 0, len(fixed.labels_N)
    gradient = torch.zeros(0) if weight is None else torch.zeros_like(weight)
    for at in range(0, n, BATCH):
        labels_B = fixed.labels_N[at : at + BATCH]
        logits_BK = net(fixed.images_NCHW[at : at + BATCH])
        value = functional.cross_entropy(logits_BK, labels_B, reduction="sum") / n
        if weight is not None:
            gradient += torch.autograd.grad(value, weight)[0]
        total += value.item()
        right += int((logits_BK.argmax(1) == labels_B).sum())
    return total, right, gradient
