"""Fast gradient sign method (arXiv:1412.6572): one step of the whole radius, from the clean image.

Differs: the gradient is that of the odds against the label, which has the cross-entropy's sign, and keeps it where the
network is very sure. A weak attack: report it beside PGD, never alone.
"""

from __future__ import annotations

import torch
from torch import nn

from tasks.attacks import direction, input_gradient, project
from tasks.config.params import Frozen, Threat


class Params(Frozen):
    """None: the radius is the threat model's."""


def perturb(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    threat: Threat,
    params: Params,
    generator: torch.Generator,
) -> torch.Tensor:
    """images + ε · sign(∇ cross-entropy), in [0, 1]; nothing is drawn at random."""
    gradient_BCHW, _ = input_gradient(net, images_BCHW, labels_B)
    return project(
        images_BCHW + threat.epsilon * direction(gradient_BCHW, threat.norm), images_BCHW, threat.norm, threat.epsilon
    )
