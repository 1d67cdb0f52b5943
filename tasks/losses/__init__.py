"""Losses: one file each, with `Params` and `loss(net, images, labels, weights, params, threat, generator)`.

A loss is of the training alone: what is saved, served and evaluated is the bare network. A loss that has rules for
its parameters beyond their types brings `check(params, threat)`.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def weighted_cross_entropy(logits_BK: torch.Tensor, labels_B: torch.Tensor, weights_B: torch.Tensor) -> torch.Tensor:
    """Σ weight · cross-entropy / Σ weight, a scalar in fp32; 0 where every weight is 0."""
    losses_B = F.cross_entropy(logits_BK.float(), labels_B, reduction="none")
    total = weights_B.sum().clamp_min(torch.finfo(losses_B.dtype).tiny)
    return (losses_B * weights_B).sum() / total
