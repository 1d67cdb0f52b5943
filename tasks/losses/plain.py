"""Cross-entropy, with a weight for each image."""

from __future__ import annotations

import torch
from torch import nn

from tasks.config.params import Frozen, Threat
from tasks.losses import weighted_cross_entropy


class Params(Frozen):
    """None."""


def loss(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    weights_B: torch.Tensor,
    params: Params,
    threat: Threat,
    generator: torch.Generator,
) -> torch.Tensor:
    """Σ weight · CE / Σ weight."""
    return weighted_cross_entropy(net(images_BCHW), labels_B, weights_B)
