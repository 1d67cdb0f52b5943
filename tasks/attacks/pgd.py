"""Projected gradient descent (arXiv:1706.06083): steps up the cross-entropy from a random point of the ball.

Differs: it climbs the odds against the label, along the same direction (tasks/attacks/__init__.py); of several restarts
the base keeps the worst image, and restarts only what still stands; `drop` leaves out of the next step what is already
fooled, which is faster and the same verdict, but ends at weaker images.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from tasks.attacks import check_steps, direction, input_gradient, project, random_start, usual_step
from tasks.config.params import Count, Frozen, Threat


class Params(Frozen):
    steps: Count
    step_size: float | None = Field(default=None, gt=0)  # in the norm, pixels in [0, 1]; null: 2.5 × epsilon / steps
    restarts: Count = 1
    drop: bool = False

    def step(self, threat: Threat) -> float:
        return usual_step(self.steps, threat.epsilon) if self.step_size is None else self.step_size

    def check(self, threat: Threat) -> None:
        """ValueError for steps that make no sense within the ball."""
        check_steps("pgd", self.steps, self.step(threat), threat)


def perturb(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    threat: Threat,
    params: Params,
    generator: torch.Generator,
) -> torch.Tensor:
    """B×C×H×W pixels in [0, 1] → as many, within the threat model."""
    norm, epsilon, step = threat.norm, threat.epsilon, params.step(threat)
    found_BCHW = random_start(images_BCHW, norm, epsilon, generator)
    if not params.drop:
        for _ in range(params.steps):
            gradient_BCHW, _ = input_gradient(net, found_BCHW, labels_B)
            found_BCHW = project(found_BCHW + step * direction(gradient_BCHW, norm), images_BCHW, norm, epsilon)
        return found_BCHW

    standing = torch.arange(len(labels_B), device=labels_B.device)
    for _ in range(params.steps):
        gradient_BCHW, logits_BK = input_gradient(net, found_BCHW[standing], labels_B[standing])
        kept = logits_BK.argmax(1) == labels_B[standing]
        standing = standing[kept]
        if len(standing) == 0:
            break
        moved_BCHW = found_BCHW[standing] + step * direction(gradient_BCHW[kept], norm)
        found_BCHW[standing] = project(moved_BCHW, images_BCHW[standing], norm, epsilon)
    return found_BCHW
