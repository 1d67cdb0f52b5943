"""Auto-PGD on the cross-entropy (arXiv:2003.01690).

Differs: it climbs the odds against the label, along the same direction (tasks/attacks/__init__.py); what else stands in
tasks/attacks/_apgd.py.
"""

from __future__ import annotations

import torch
from torch import nn

from tasks.attacks import odds_against
from tasks.attacks._apgd import ascend
from tasks.config.params import Count, Frozen, Threat


class Params(Frozen):
    steps: Count = 100
    restarts: Count = 1


def passes(params: Params) -> float:
    """Gradients of an image, at most."""
    return (params.steps + 1) * params.restarts


def perturb(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    threat: Threat,
    params: Params,
    generator: torch.Generator,
) -> torch.Tensor:
    """B×C×H×W pixels in [0, 1] → as many, within the threat model."""
    return ascend(net, images_BCHW, labels_B, labels_B, _rise, threat, params.steps, generator)


def _rise(logits_BK: torch.Tensor, labels_B: torch.Tensor, towards_B: torch.Tensor) -> torch.Tensor:
    return odds_against(labels_B)(logits_BK, slice(None))
