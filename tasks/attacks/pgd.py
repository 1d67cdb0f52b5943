"""Projected gradient descent (arXiv:1706.06083): steps up the cross-entropy from a random point of the ball.

Differs: of several restarts the base keeps the worst image, and restarts only what still stands; `drop` leaves out of
the next step what is already fooled, which is faster and the same verdict, but ends at weaker images.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from tasks.attacks import direction, input_gradient, project, random_start
from tasks.params import Count, Frozen, Threat


class Params(Frozen):
    steps: Count
    step_size: float = Field(gt=0)  # in the threat model's norm, pixels in [0, 1]
    restarts: Count = 1
    drop: bool = False


def check(params: Params, threat: Threat) -> None:
    """ValueError for steps that make no sense within the ball."""
    if params.step_size > 2 * threat.epsilon:
        raise ValueError(
            f"pgd: step_size must be at most 2 × epsilon = {2 * threat.epsilon:g}, the ball's width, "
            f"got {params.step_size:g}; 2.5 × epsilon / steps is usual, pixels lie in [0, 1]"
        )


def perturb(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    threat: Threat,
    params: Params,
    generator: torch.Generator,
) -> torch.Tensor:
    """B×C×H×W pixels in [0, 1] → as many, within the threat model."""
    norm, epsilon = threat.norm, threat.epsilon
    found_BCHW = random_start(images_BCHW, norm, epsilon, generator)
    if not params.drop:
        for _ in range(params.steps):
            gradient_BCHW, _ = input_gradient(net, found_BCHW, labels_B)
            found_BCHW = project(
                found_BCHW + params.step_size * direction(gradient_BCHW, norm), images_BCHW, norm, epsilon
            )
        return found_BCHW

    standing = torch.arange(len(labels_B), device=labels_B.device)
    for _ in range(params.steps):
        gradient_BCHW, logits_BK = input_gradient(net, found_BCHW[standing], labels_B[standing])
        kept = logits_BK.argmax(1) == labels_B[standing]
        standing = standing[kept]
        if len(standing) == 0:
            break
        moved_BCHW = found_BCHW[standing] + params.step_size * direction(gradient_BCHW[kept], norm)
        found_BCHW[standing] = project(moved_BCHW, images_BCHW[standing], norm, epsilon)
    return found_BCHW
