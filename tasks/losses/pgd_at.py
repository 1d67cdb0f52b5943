"""Adversarial training (Madry et al., arXiv:1706.06083).

    L = CE(x′),    x′ = PGD within the threat model, from a random point of the ball

Differs: x′ is made in eval mode, so that dropout and batch norm see the training pass alone; images have weights;
`clean` mixes in the clean images' cross-entropy, as L = (1 − clean) · CE(x′) + clean · CE(x).
"""

from __future__ import annotations

import torch
from torch import nn

from tasks.config.params import Share, Threat
from tasks.losses import Inner, adversarial, check_inner, weighted_cross_entropy


class Params(Inner):
    clean: Share = 0.0  # of the loss that is on the clean images


def check(params: Params, threat: Threat) -> None:
    """ValueError for a radius or steps that make no sense."""
    check_inner("pgd_at", params, threat)


def loss_at(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    adversarial_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    weights_B: torch.Tensor,
    params: Params,
) -> torch.Tensor:
    """The adversarial images' cross-entropy, and the clean ones' share of it."""
    value = weighted_cross_entropy(net(adversarial_BCHW), labels_B, weights_B)
    if params.clean == 0:
        return value
    clean = weighted_cross_entropy(net(images_BCHW), labels_B, weights_B)
    return (1 - params.clean) * value + params.clean * clean


def loss(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    weights_B: torch.Tensor,
    params: Params,
    threat: Threat,
    generator: torch.Generator,
) -> torch.Tensor:
    """A scalar for one `backward`; the adversarial images are made on the weights as they are."""
    check(params, threat)
    adversarial_BCHW = adversarial(net, images_BCHW, labels_B, params, threat, generator)
    return loss_at(net, images_BCHW, adversarial_BCHW, labels_B, weights_B, params)
