"""Adversarial training (Madry et al., arXiv:1706.06083).

    L = CE(x′),    x′ = PGD within the threat model, from a random point of the ball

Differs: x′ is made in eval mode, so that dropout and batch norm see the training pass alone; images have weights;
`clean` mixes in the clean images' cross-entropy, as L = (1 − clean) · CE(x′) + clean · CE(x).
"""

from __future__ import annotations

import torch
from torch import nn

from tasks.config.params import Share
from tasks.engine.batch import Batch
from tasks.losses import Inner, weighted_cross_entropy


class Params(Inner):
    clean: Share = 0.0  # of the loss that is on the clean images


def loss_at(net: nn.Module, batch: Batch, adversarial_BCHW: torch.Tensor, params: Params) -> torch.Tensor:
    """The adversarial images' cross-entropy, and the clean ones' share of it."""
    value = weighted_cross_entropy(net(adversarial_BCHW), batch.labels_B, batch.weights_B)
    if params.clean == 0:
        return value
    clean = weighted_cross_entropy(net(batch.images_BCHW), batch.labels_B, batch.weights_B)
    return (1 - params.clean) * value + params.clean * clean
