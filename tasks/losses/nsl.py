"""Adversarial regularization as in Neural Structured Learning (after arXiv:1412.6572 and arXiv:1704.03976).

    L = CE(x) + multiplier · CE(x′),    x′ = x + step_size · direction(∇ₓ CE(x)),    no gradient through x′

direction is the gradient's sign (norm linf) or the gradient at unit length (norm l2). With one step this is the
tutorial's: no random start, no clipping, x′ may leave [0, 1]. With several it is its PGD neighbour: after each step
x′ is projected to the ball of radius `epsilon` around x.
Differs: with several steps x′ is also cut to [0, 1], and all but the first are taken in eval mode, so that dropout
and batch norm see the training pass alone; images have weights. The first gradient is that of the training pass,
whose one backward serves the weights and the input.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from tasks.attacks import check_steps, direction, odds_against, project, value_and_gradient
from tasks.config.params import Count, Frozen, Threat, check_length
from tasks.engine.batch import Batch
from tasks.engine.bf16 import attack_network
from tasks.engine.inference import evaluating
from tasks.losses import weighted_cross_entropy


class Params(Frozen):
    multiplier: float = Field(default=0.2, ge=0)
    step_size: float = Field(default=0.2, gt=0)  # in `norm`, pixels in [0, 1]
    norm: Literal["linf", "l2"] = "linf"
    steps: Count = 1
    epsilon: float | None = Field(default=None, gt=0)  # radius for several steps; null: the threat model's

    def radius(self, threat: Threat) -> float:
        return threat.epsilon if self.epsilon is None else self.epsilon

    def check(self, threat: Threat) -> None:
        """ValueError for steps that make no sense."""
        check_length("nsl: step_size must be", self.norm, self.step_size)
        if self.steps == 1:
            return
        if self.epsilon is None and self.norm != threat.norm:
            raise ValueError(
                f"nsl: several steps of norm {self.norm} need an epsilon of their own, for the threat model's "
                f"radius is {threat.norm}; set train.loss.params.epsilon"
            )
        radius = self.radius(threat)
        check_length("nsl: epsilon must be", self.norm, radius)
        reaches = self.epsilon is None  # NSL's own neighbours may end within their ball
        check_steps("nsl", self.steps, self.step_size, Threat(norm=self.norm, epsilon=radius), reaches=reaches)


def loss(net: nn.Module, batch: Batch, params: Params, threat: Threat, generator: torch.Generator) -> torch.Tensor:
    """A scalar for one `backward`: the cross-entropies are weighted means, Σ weight · CE / Σ weight."""
    images_BCHW, labels_B = batch.images_BCHW, batch.labels_B
    clean, gradient_BCHW = _once_backward(net, batch)
    neighbour_BCHW = images_BCHW + params.step_size * direction(gradient_BCHW, params.norm)
    if params.steps > 1:
        radius = params.radius(threat)
        neighbour_BCHW = project(neighbour_BCHW, images_BCHW, params.norm, radius)
        with evaluating(net):
            steps_on = attack_network(net, images_BCHW)
            for _ in range(params.steps - 1):
                gradient_BCHW, *_ = value_and_gradient(steps_on, neighbour_BCHW, odds_against(labels_B))
                neighbour_BCHW = project(
                    neighbour_BCHW + params.step_size * direction(gradient_BCHW, params.norm),
                    images_BCHW,
                    params.norm,
                    radius,
                )
    adversarial = weighted_cross_entropy(net(neighbour_BCHW.detach()), labels_B, batch.weights_B)
    return clean + params.multiplier * adversarial


class _Computed(torch.autograd.Function):
    """A scalar whose gradient has been worked out already: hands the gradients on instead of going back again."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, count: int, *weights_then_gradients: torch.Tensor) -> torch.Tensor:
        ctx.count = count
        ctx.save_for_backward(*weights_then_gradients[count:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        gradients = [upstream * gradient for gradient in ctx.saved_tensors]
        return (None, None, *gradients, *([None] * ctx.count))


def _once_backward(net: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The clean loss, ready for `backward`, and its gradient on the input, out of one pass there and back."""
    moving = [weight for weight in net.parameters() if weight.requires_grad]
    inputs_BCHW = batch.images_BCHW.detach().requires_grad_()
    value = weighted_cross_entropy(net(inputs_BCHW), batch.labels_B, batch.weights_B)
    gradient_BCHW, *gradients = torch.autograd.grad(value, [inputs_BCHW, *moving], allow_unused=True)
    used = [(weight, gradient) for weight, gradient in zip(moving, gradients, strict=True) if gradient is not None]
    clean = _Computed.apply(
        value.detach(), len(used), *(weight for weight, _ in used), *(gradient for _, gradient in used)
    )
    return clean, gradient_BCHW
