"""Cross-entropy, with a weight for each image."""

from __future__ import annotations

import torch
from torch import nn

from tasks.config.params import Frozen, Threat
from tasks.engine.batch import Batch
from tasks.losses import weighted_cross_entropy

DEFENDS = False  # against no attack


class Params(Frozen):
    """None."""


def loss(net: nn.Module, batch: Batch, params: Params, threat: Threat, generator: torch.Generator) -> torch.Tensor:
    """Σ weight · CE / Σ weight."""
    return weighted_cross_entropy(net(batch.images_BCHW), batch.labels_B, batch.weights_B)
