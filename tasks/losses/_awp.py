"""Adversarial weight perturbation (Wu et al., arXiv:2004.05884), an addition to any loss.

    Δ_l = gamma · ‖w_l‖ · g_l / ‖g_l‖,   g = ∇_w L(w),   and the step's gradient is that of L(w + Δ)

for weights of more than one dimension. A proxy's single ascent step, scaled to the weight's length, is this: its
learning rate cancels. The adversarial images are made on w, once. Differs: the ascent is on the whole loss of whichever
kind, and moves no statistics of batch norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from tasks.config.params import Awp


@contextmanager
def perturbed(net: nn.Module, value: Callable[[], torch.Tensor], awp: Awp) -> Iterator[None]:
    """Inside, the weights stand where `value`, the loss of one batch, is higher; afterwards where they were.

    Gradients got inside are those of the moved weights, and `backward` belongs there too. Leaves no gradient itself.
    """
    weights = [weight for weight in net.parameters() if weight.ndim > 1 and weight.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    gradients = torch.autograd.grad(value(), weights, allow_unused=True)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for buffer, old in buffers:
            buffer.copy_(old)
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                length = gradient.norm().clamp_min(torch.finfo(gradient.dtype).tiny)
                weight.add_(gradient * (awp.gamma * weight.norm() / length))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
